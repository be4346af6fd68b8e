//! `tojson` as transformers defines it: Python's json.dumps, nothing escaped for HTML.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use crate::python::float_repr;

const MAX_DEPTH: usize = 200;

struct Style {
    ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

fn type_error(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// json.dumps takes an int (that many spaces, none when negative) or a string.
fn parse_indent(value: &Value) -> Result<Option<String>, Error> {
    if value.is_none() || value.is_undefined() {
        return Ok(None);
    }
    if let Some(text) = value.as_str() {
        return Ok(Some(text.to_string()));
    }
    match value.as_i64() {
        Some(width) if width <= 64 => Ok(Some(" ".repeat(width.max(0) as usize))),
        Some(width) => Err(type_error(format!("tojson: indent is {width}, want at most 64"))),
        None => Err(type_error(format!("tojson: indent is {value}, want a number or a string"))),
    }
}

/// tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)
pub fn filter(
    state: &State,
    value: &Value,
    positional: Rest<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    const NAMES: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let mut options: [Value; 4] = Default::default();
    if positional.len() > NAMES.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    for (slot, given) in options.iter_mut().zip(positional.iter()) {
        *slot = given.clone();
    }
    for (slot, name) in options.iter_mut().zip(NAMES) {
        if let Some(given) = kwargs.get::<Option<Value>>(name)? {
            *slot = given;
        }
    }
    kwargs.assert_all_used()?;
    let indent = parse_indent(&options[1])?;
    let item_default = if indent.is_some() { "," } else { ", " };
    let mut style = Style {
        ascii: options[0].is_true(),
        indent,
        item_separator: item_default.to_string(),
        key_separator: ": ".to_string(),
        sort_keys: options[3].is_true(),
    };
    if !options[2].is_none() && !options[2].is_undefined() {
        let parts: Vec<Value> = options[2].try_iter()?.collect();
        match (parts.first().and_then(Value::as_str), parts.get(1).and_then(Value::as_str)) {
            (Some(item), Some(key)) if parts.len() == 2 => {
                style.item_separator = item.to_string();
                style.key_separator = key.to_string();
            }
            _ => return Err(type_error("tojson: separators must be two strings".to_string())),
        }
    }
    let mut out = String::new();
    write_value(state, &mut out, value, &style, 0)?;
    Ok(Value::from(out))
}

fn write_value(
    state: &State,
    out: &mut String,
    value: &Value,
    style: &Style,
    depth: usize,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(type_error(format!("tojson: nested more than {MAX_DEPTH} deep")));
    }
    state.consume_fuel(1)?;
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            state.consume_fuel(text.len() as u64 / 64)?;
            write_string(out, text, style.ascii);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_items(state, out, '[', ']', items.len(), style, depth, |out, index| {
                write_value(state, out, &items[index], style, depth + 1)
            })?;
        }
        ValueKind::Map => write_map(state, out, value, style, depth)?,
        ValueKind::Undefined => {
            return Err(type_error("tojson: an undefined value has no JSON form".to_string()))
        }
        kind => return Err(type_error(format!("tojson: a {kind} has no JSON form"))),
    }
    Ok(())
}

fn write_map(
    state: &State,
    out: &mut String,
    value: &Value,
    style: &Style,
    depth: usize,
) -> Result<(), Error> {
    let mut keys: Vec<Value> = value.try_iter()?.collect();
    if style.sort_keys {
        keys.sort_by(|a, b| match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => a.cmp(b),
        });
    }
    write_items(state, out, '{', '}', keys.len(), style, depth, |out, index| {
        let key = &keys[index];
        let text = match key.kind() {
            ValueKind::String => key.as_str().unwrap_or_default().to_string(),
            ValueKind::None => "null".to_string(),
            ValueKind::Bool => (if key.is_true() { "true" } else { "false" }).to_string(),
            ValueKind::Number => number(key),
            kind => return Err(type_error(format!("tojson: a {kind} cannot be a key"))),
        };
        write_string(out, &text, style.ascii);
        out.push_str(&style.key_separator);
        write_value(state, out, &value.get_item(key)?, style, depth + 1)
    })
}

#[allow(clippy::too_many_arguments)]
fn write_items(
    state: &State,
    out: &mut String,
    open: char,
    close: char,
    count: usize,
    style: &Style,
    depth: usize,
    mut write_one: impl FnMut(&mut String, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(open);
    for index in 0..count {
        if index > 0 {
            out.push_str(&style.item_separator);
        }
        if let Some(indent) = &style.indent {
            out.push('\n');
            state.consume_fuel((indent.len() * (depth + 1)) as u64 / 64)?;
            out.push_str(&indent.repeat(depth + 1));
        }
        write_one(out, index)?;
    }
    if let (Some(indent), true) = (&style.indent, count > 0) {
        out.push('\n');
        out.push_str(&indent.repeat(depth));
    }
    out.push(close);
    Ok(())
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(float) if float.is_nan() => "NaN".to_string(),
        Ok(float) if float.is_infinite() => {
            (if float > 0.0 { "Infinity" } else { "-Infinity" }).to_string()
        }
        Ok(float) => float_repr(float),
        Err(_) => value.to_string(),
    }
}

fn write_string(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            // json.dumps with ensure_ascii escapes 0x7f too; without it the character stays.
            c if ascii && (c as u32) >= 0x7f => {
                let mut units = [0u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
