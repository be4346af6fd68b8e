//! Jinja filters that minijinja lacks or that take other arguments there.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use crate::python::{string_repr, value_repr, value_str};

/// Binds positional and keyword arguments to `names`, as a Python call does. Absent ones are
/// undefined.
fn bind<const N: usize>(
    positional: &Rest<Value>,
    kwargs: &Kwargs,
    names: [&str; N],
) -> Result<[Value; N], Error> {
    if positional.len() > N {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut bound: [Value; N] = std::array::from_fn(|_| Value::UNDEFINED);
    for (slot, given) in bound.iter_mut().zip(positional.iter()) {
        *slot = given.clone();
    }
    for (slot, name) in bound.iter_mut().zip(names) {
        if kwargs.has(name) {
            *slot = kwargs.get::<Value>(name)?;
        }
    }
    kwargs.assert_all_used()?;
    Ok(bound)
}

/// default(value, default_value='', boolean=False)
fn default(value: &Value, rest: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let [otherwise, boolean] = bind(&rest, &kwargs, ["default_value", "boolean"])?;
    let otherwise = if otherwise.is_undefined() { Value::from("") } else { otherwise };
    let replace = value.is_undefined() || (boolean.is_true() && !value.is_true());
    Ok(if replace { otherwise } else { value.clone() })
}

fn to_float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Bool => Some(if value.is_true() { 1.0 } else { 0.0 }),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::String => value.as_str()?.trim().parse().ok(),
        _ => None,
    }
}

/// int(value, default=0, base=10)
fn int(value: &Value, rest: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let [otherwise, base] = bind(&rest, &kwargs, ["default", "base"])?;
    let otherwise = if otherwise.is_undefined() { Value::from(0) } else { otherwise };
    if value.is_integer() {
        return Ok(value.clone());
    }
    if let Some(text) = value.as_str() {
        let radix = base.as_i64().unwrap_or(10);
        let digits = text.trim();
        let digits = match radix {
            2 => digits.trim_start_matches("0b"),
            8 => digits.trim_start_matches("0o"),
            16 => digits.trim_start_matches("0x"),
            10 => digits,
            _ => return Ok(otherwise),
        };
        if let Ok(number) = i64::from_str_radix(digits, radix as u32) {
            return Ok(Value::from(number));
        }
    }
    match to_float(value) {
        Some(float) if float.is_finite() && float.abs() < 1e38 => {
            let whole = float.trunc() as i128;
            Ok(i64::try_from(whole).map_or_else(|_| Value::from(whole), Value::from))
        }
        _ => Ok(otherwise),
    }
}

/// float(value, default=0.0)
fn float(value: &Value, rest: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let [otherwise] = bind(&rest, &kwargs, ["default"])?;
    let otherwise = if otherwise.is_undefined() { Value::from(0.0) } else { otherwise };
    Ok(to_float(value).map_or(otherwise, Value::from))
}

/// dictsort(value, case_sensitive=False, by='key', reverse=False)
fn dictsort(
    state: &State,
    value: &Value,
    rest: Rest<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let [sensitive, by, reverse] = bind(&rest, &kwargs, ["case_sensitive", "by", "reverse"])?;
    if value.kind() != ValueKind::Map {
        return Err(Error::new(ErrorKind::InvalidOperation, "dictsort: want a mapping"));
    }
    let position = match by.as_str() {
        None | Some("key") => 0,
        Some("value") => 1,
        Some(other) => {
            let message = format!("dictsort: by is '{other}', want 'key' or 'value'");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    };
    let mut pairs = Vec::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        pairs.push([key, item]);
    }
    state.consume_fuel((pairs.len() * 20) as u64)?;
    let sort_key = |pair: &[Value; 2]| match pair[position].as_str() {
        Some(text) if !sensitive.is_true() => Value::from(text.to_lowercase()),
        _ => pair[position].clone(),
    };
    pairs.sort_by_cached_key(sort_key);
    if reverse.is_true() {
        pairs.reverse();
    }
    Ok(pairs.into_iter().map(|pair| Value::from(Tuple::from(pair))).collect())
}

/// truncate(s, length=255, killwords=False, end='...', leeway=5)
fn truncate(value: &Value, rest: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, kill_words, end, leeway] = bind(&rest, &kwargs, names)?;
    let length = length.as_usize().unwrap_or(255);
    let leeway = leeway.as_usize().unwrap_or(5);
    let end = end.as_str().unwrap_or("...").to_string();
    let text = value_str(value);
    let end_length = end.chars().count();
    if length < end_length {
        let message = format!("truncate: length is {length}, want at least {end_length}");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(Value::from(text));
    }
    let mut kept: String = text.chars().take(length - end_length).collect();
    if !kill_words.is_true() {
        if let Some(space) = kept.rfind(' ') {
            kept.truncate(space);
        }
    }
    Ok(Value::from(kept + &end))
}

fn wordcount(value: &Value) -> usize {
    let text = value_str(value);
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).count()
}

/// center(value, width=80)
fn center(state: &State, value: &Value, width: Option<usize>) -> Result<String, Error> {
    let text = value_str(value);
    let width = width.unwrap_or(80);
    state.consume_fuel(width as u64 / 16)?;
    let missing = width.saturating_sub(text.chars().count());
    // str.center puts the odd space on the left only when the width is odd too.
    let left = missing / 2 + (missing & width & 1);
    Ok(format!("{}{text}{}", " ".repeat(left), " ".repeat(missing - left)))
}

/// escape: the entities of Python's MarkupSafe.
fn escape(value: &Value) -> String {
    let mut out = String::new();
    for c in value_str(value).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

/// title: a capital after white space and -([{<, small letters elsewhere.
fn title(value: &Value) -> String {
    let mut out = String::new();
    let mut at_start = true;
    for c in value_str(value).chars() {
        if at_start {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        at_start = c.is_whitespace() || "-([{<".contains(c);
    }
    out
}

fn pprint(value: &Value) -> String {
    let mut out = String::new();
    match value.as_str() {
        Some(text) => string_repr(&mut out, text),
        None => value_repr(&mut out, value, 100),
    }
    out
}

fn urlencode(value: &Value) -> String {
    let mut out = String::new();
    for byte in value_str(value).bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

pub fn add_to(env: &mut Environment<'static>) {
    env.add_filter("default", default);
    env.add_filter("d", default);
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_filter("dictsort", dictsort);
    env.add_filter("truncate", truncate);
    env.add_filter("wordcount", wordcount);
    env.add_filter("center", center);
    env.add_filter("escape", escape);
    env.add_filter("e", escape);
    env.add_filter("forceescape", escape);
    env.add_filter("title", title);
    env.add_filter("pprint", pprint);
    env.add_filter("urlencode", urlencode);
}
