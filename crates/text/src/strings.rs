//! Python's str and list methods where minijinja's compatibility layer lacks them or differs.

use minijinja::value::{from_args, Kwargs, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use crate::python::value_str;

/// str.isspace() of one character: Unicode white space and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let drop = |c: char| match chars {
        Some(set) => set.contains(c),
        None => is_space(c),
    };
    let text = if left { text.trim_start_matches(drop) } else { text };
    if right {
        text.trim_end_matches(drop)
    } else {
        text
    }
}

/// The `trim` filter: str(value).strip(chars).
pub fn trim(value: &Value, chars: Option<&str>) -> String {
    let text = value_str(value);
    strip(&text, chars, true, true).to_string()
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn split_whitespace(text: &str, max: Option<usize>) -> Vec<Value> {
    let mut parts = Vec::new();
    let mut rest = strip(text, None, true, false);
    while !rest.is_empty() {
        if max.is_some_and(|max| parts.len() == max) {
            parts.push(Value::from(strip(rest, None, false, true)));
            return parts;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(Value::from(&rest[..end]));
        rest = strip(&rest[end..], None, true, false);
    }
    parts
}

fn rsplit_whitespace(text: &str, max: Option<usize>) -> Vec<Value> {
    let mut parts = Vec::new();
    let mut rest = strip(text, None, false, true);
    while !rest.is_empty() {
        if max.is_some_and(|max| parts.len() == max) {
            parts.push(Value::from(strip(rest, None, true, false)));
            break;
        }
        let start = rest.char_indices().rev().find(|(_, c)| is_space(*c));
        let start = start.map_or(0, |(at, c)| at + c.len_utf8());
        parts.push(Value::from(&rest[start..]));
        rest = strip(&rest[..start], None, false, true);
    }
    parts.reverse();
    parts
}

fn split(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (sep, max, kwargs): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let sep = match sep {
        Some(sep) => sep,
        None => kwargs.get::<Option<Value>>("sep")?.unwrap_or_default(),
    };
    let max = match max {
        Some(max) => max,
        None => kwargs.get::<Option<i64>>("maxsplit")?.unwrap_or(-1),
    };
    kwargs.assert_all_used()?;
    let max = usize::try_from(max).ok();
    let limit = max.map_or(usize::MAX, |max| max.saturating_add(1));
    if sep.is_none() || sep.is_undefined() {
        let parts = if from_right { rsplit_whitespace(text, max) } else { split_whitespace(text, max) };
        return Ok(Value::from(parts));
    }
    match sep.as_str() {
        None => Err(invalid(format!("split: the separator is {sep}, want a string"))),
        Some("") => Err(invalid("split: empty separator")),
        Some(sep) if from_right => {
            let mut parts: Vec<Value> = text.rsplitn(limit, sep).map(Value::from).collect();
            parts.reverse();
            Ok(Value::from(parts))
        }
        Some(sep) => Ok(Value::from(text.splitn(limit, sep).map(Value::from).collect::<Vec<_>>())),
    }
}

fn split_lines(text: &str, keep_ends: bool) -> Vec<Value> {
    let is_break = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(end) = rest.find(is_break) else {
            lines.push(Value::from(rest));
            break;
        };
        let broken = rest[end..].chars().next().map_or(1, char::len_utf8);
        let after = if rest[end..].starts_with("\r\n") { end + 2 } else { end + broken };
        lines.push(Value::from(&rest[..if keep_ends { after } else { end }]));
        rest = &rest[after..];
    }
    lines
}

/// text[start:end] in characters, as the optional arguments of find, count and startswith take it.
fn window(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    if start.is_none() && end.is_none() {
        return Some((0, text));
    }
    let count = text.chars().count() as i64;
    let clamp = |at: i64| (if at < 0 { at + count } else { at }).clamp(0, count);
    let first = start.unwrap_or(0);
    let (from, to) = (clamp(first), clamp(end.unwrap_or(count)));
    if from > to || first > count {
        return None;
    }
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    Some((from as usize, &text[byte(from)..byte(to)]))
}

fn find(text: &str, args: &[Value], from_right: bool) -> Result<i64, Error> {
    let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let Some((offset, part)) = window(text, start, end) else {
        return Ok(-1);
    };
    let found = if from_right { part.rfind(what) } else { part.find(what) };
    Ok(found.map_or(-1, |at| (part[..at].chars().count() + offset) as i64))
}

fn matches_end(text: &str, args: &[Value], at_start: bool) -> Result<Value, Error> {
    let (what, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
    let Some((_, part)) = window(text, start, end) else {
        return Ok(Value::from(false));
    };
    let fits = |affix: &str| if at_start { part.starts_with(affix) } else { part.ends_with(affix) };
    if let Some(affix) = what.as_str() {
        return Ok(Value::from(fits(affix)));
    }
    // Python takes a tuple here and refuses a list.
    if !what.is_tuple() {
        return Err(invalid(format!(
            "startswith and endswith take a string or a tuple of strings, found {}",
            what.kind()
        )));
    }
    let affixes: Vec<Value> = what.try_iter()?.collect();
    Ok(Value::from(affixes.iter().filter_map(Value::as_str).any(fits)))
}

fn partition(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (sep,): (&str,) = from_args(args)?;
    if sep.is_empty() {
        return Err(invalid("partition: empty separator"));
    }
    let found = if from_right { text.rfind(sep) } else { text.find(sep) };
    let (head, mid, tail) = match found {
        Some(at) => (&text[..at], sep, &text[at + sep.len()..]),
        None if from_right => ("", "", text),
        None => (text, "", ""),
    };
    Ok(Value::from(Tuple::from([Value::from(head), Value::from(mid), Value::from(tail)])))
}

/// ljust, rjust, center: spaces or `fill` up to `width` characters.
fn pad(state: &State, text: &str, args: &[Value], left: fn(i64, i64) -> i64) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let fill = fill.unwrap_or(" ");
    if fill.chars().count() != 1 {
        return Err(invalid("the fill character must be one character"));
    }
    let missing = (width - text.chars().count() as i64).max(0);
    state.consume_fuel(missing as u64 / 16)?;
    let before = left(missing, width);
    Ok(Value::from(format!(
        "{}{text}{}",
        fill.repeat(before as usize),
        fill.repeat((missing - before) as usize)
    )))
}

/// str.title(): a capital after everything that is not a letter.
fn title(text: &str) -> String {
    let mut out = String::new();
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_alphabetic();
    }
    out
}

fn zero_fill(state: &State, text: &str, args: &[Value]) -> Result<Value, Error> {
    let (width,): (i64,) = from_args(args)?;
    let missing = (width - text.chars().count() as i64).max(0);
    state.consume_fuel(missing as u64 / 16)?;
    let (sign, digits) = match text.chars().next() {
        Some('+' | '-') => text.split_at(1),
        _ => ("", text),
    };
    Ok(Value::from(format!("{sign}{}{digits}", "0".repeat(missing as usize))))
}

fn string_method(state: &State, text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let stripped = |left: bool, right: bool| -> Result<Value, Error> {
        let (chars,): (Option<Value>,) = from_args(args)?;
        let chars = chars.filter(|chars| !chars.is_none());
        Ok(Value::from(strip(text, chars.as_ref().and_then(Value::as_str), left, right)))
    };
    Some(match method {
        "strip" => stripped(true, true),
        "lstrip" => stripped(true, false),
        "rstrip" => stripped(false, true),
        "split" => split(text, args, false),
        "rsplit" => split(text, args, true),
        "splitlines" => from_args::<(Option<bool>,)>(args)
            .map(|(keep,)| Value::from(split_lines(text, keep.unwrap_or(false)))),
        "startswith" => matches_end(text, args, true),
        "endswith" => matches_end(text, args, false),
        "find" => find(text, args, false).map(Value::from),
        "rfind" => find(text, args, true).map(Value::from),
        "index" | "rindex" => find(text, args, method == "rindex").and_then(|at| {
            if at < 0 { Err(invalid("substring not found")) } else { Ok(Value::from(at)) }
        }),
        "partition" => partition(text, args, false),
        "rpartition" => partition(text, args, true),
        "removeprefix" => from_args::<(&str,)>(args)
            .map(|(affix,)| Value::from(text.strip_prefix(affix).unwrap_or(text))),
        "removesuffix" => from_args::<(&str,)>(args)
            .map(|(affix,)| Value::from(text.strip_suffix(affix).unwrap_or(text))),
        "ljust" => pad(state, text, args, |_, _| 0),
        "rjust" => pad(state, text, args, |missing, _| missing),
        "center" => pad(state, text, args, |missing, width| missing / 2 + (missing & width & 1)),
        "zfill" => zero_fill(state, text, args),
        "title" => Ok(Value::from(title(text))),
        "casefold" => Ok(Value::from(text.to_lowercase())),
        "isspace" => Ok(Value::from(!text.is_empty() && text.chars().all(is_space))),
        _ => return None,
    })
}

fn list_method(value: &Value, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    match method {
        "copy" => Some(value.try_iter().map(|items| Value::from(items.collect::<Vec<_>>()))),
        "index" => Some((|| {
            let (what,): (&Value,) = from_args(args)?;
            let position = value.try_iter()?.position(|item| item == *what);
            position
                .map(Value::from)
                .ok_or_else(|| invalid(format!("{what} is not in the list")))
        })()),
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse" => {
            Some(Err(invalid(format!(
                "list.{method} would change a list, which templates may not; use namespace()"
            ))))
        }
        _ => None,
    }
}

/// str.format takes its widths from the text: an absurd one would be allocated.
fn check_widths(format: &str) -> Result<(), Error> {
    let longest = format.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    if longest > 5 {
        return Err(invalid(format!("format: a number of {longest} digits, want at most 5")));
    }
    Ok(())
}

/// Methods that are not fields of the value: ours first, then minijinja-contrib's.
pub fn unknown_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let ours = match value.kind() {
        ValueKind::String => string_method(state, value.as_str().unwrap_or_default(), method, args),
        ValueKind::Seq => list_method(value, method, args),
        ValueKind::Map if matches!(method, "update" | "pop" | "popitem" | "clear" | "setdefault") => {
            Some(Err(invalid(format!(
                "dict.{method} would change a dict, which templates may not; use namespace()"
            ))))
        }
        _ => None,
    };
    if method == "format" {
        check_widths(value.as_str().unwrap_or_default())?;
    }
    match ours {
        Some(result) => result,
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}
