//! Values as Python shows them, and JSON objects that behave as Python dicts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{from_args, Enumerator, Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};

/// repr(float): the shortest digits that read back, an exponent below 1e-4 and from 1e16 on.
pub fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_string();
    }
    if value.is_infinite() {
        return (if value > 0.0 { "inf" } else { "-inf" }).to_string();
    }
    let shortest = format!("{value:e}");
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Characters that repr(str) escapes beside controls: separators and invisible formatting.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c as u32,
            0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x8e2 | 0x180e | 0x200b..=0x200f
            | 0x202a..=0x202e | 0x2060..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb
            | 0xfffe | 0xffff | 0xe0001 | 0xe0020..=0xe007f | 0xf0000..)
}

pub fn string_repr(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_unprintable(c) => {
                let code = c as u32;
                out.push_str(&match code {
                    0..=0xff => format!("\\x{code:02x}"),
                    0x100..=0xffff => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// repr(value). Values nested deeper than `depth` levels show as "...".
pub fn value_repr(out: &mut String, value: &Value, depth: usize) {
    if depth == 0 {
        out.push_str("...");
        return;
    }
    match value.kind() {
        ValueKind::String => string_repr(out, value.as_str().unwrap_or_default()),
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Map => {
            out.push('{');
            if let Ok(keys) = value.try_iter() {
                for (index, key) in keys.enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    value_repr(out, &key, depth - 1);
                    out.push_str(": ");
                    value_repr(out, &value.get_item(&key).unwrap_or_default(), depth - 1);
                }
            }
            out.push('}');
        }
        ValueKind::Seq => {
            let is_tuple = value.is_tuple();
            out.push(if is_tuple { '(' } else { '[' });
            let mut count = 0;
            if let Ok(items) = value.try_iter() {
                for item in items {
                    out.push_str(if count > 0 { ", " } else { "" });
                    value_repr(out, &item, depth - 1);
                    count += 1;
                }
            }
            out.push_str(if is_tuple && count == 1 { "," } else { "" });
            out.push(if is_tuple { ')' } else { ']' });
        }
        _ => out.push_str(&value_str(value)),
    }
}

/// str(value).
pub fn value_str(value: &Value) -> String {
    match value.kind() {
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(float) => float_repr(float),
            Err(_) => value.to_string(),
        },
        ValueKind::Map | ValueKind::Seq => {
            let mut out = String::new();
            value_repr(&mut out, value, 100);
            out
        }
        _ => value.to_string(),
    }
}

/// What `{{ value }}` writes.
pub fn formatter(out: &mut Output, _state: &mut State, value: &Value) -> Result<(), Error> {
    if value.kind() == ValueKind::Invalid {
        return Err(Error::new(ErrorKind::InvalidOperation, value.to_string()));
    }
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None => out.write_str(&value_str(value)),
    };
    written.map_err(|_| Error::from(ErrorKind::WriteFailure))
}

/// A JSON object. As in Python, `d.items()` is the method even where the object has a key "items".
pub struct PyDict {
    entries: Vec<(Arc<str>, Value)>,
    index: HashMap<Arc<str>, usize>,
}

impl fmt::Debug for PyDict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::from("{");
        for (position, (key, value)) in self.entries.iter().enumerate() {
            out.push_str(if position > 0 { ", " } else { "" });
            string_repr(&mut out, key);
            out.push_str(": ");
            value_repr(&mut out, value, 100);
        }
        out.push('}');
        f.write_str(&out)
    }
}

impl Object for PyDict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let position = *self.index.get(key.as_str()?)?;
        Some(self.entries[position].1.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.iter().map(|(key, _)| Value::from(key.clone())).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }

    fn call_method(
        self: &Arc<Self>,
        _state: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        match method {
            "keys" => {
                let () = from_args(args)?;
                Ok(self.entries.iter().map(|(key, _)| Value::from(key.clone())).collect())
            }
            "values" => {
                let () = from_args(args)?;
                Ok(self.entries.iter().map(|(_, value)| value.clone()).collect())
            }
            "items" => {
                let () = from_args(args)?;
                let pair = |(key, value): &(Arc<str>, Value)| {
                    Value::from(Tuple::from([Value::from(key.clone()), value.clone()]))
                };
                Ok(self.entries.iter().map(pair).collect())
            }
            "copy" => {
                let () = from_args(args)?;
                Ok(Value::from_dyn_object(self.clone()))
            }
            "get" => {
                let (key, default): (&Value, Option<Value>) = from_args(args)?;
                Ok(self.get_value(key).or(default).unwrap_or_else(|| Value::from(())))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// JSON to template values; the order of keys is kept, the last of equal keys wins.
pub fn from_json(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(value),
        serde_json::Value::Number(number) => {
            if let Some(value) = number.as_i64() {
                Value::from(value)
            } else if let Some(value) = number.as_u64() {
                Value::from(value)
            } else {
                Value::from(number.as_f64().unwrap_or(f64::NAN))
            }
        }
        serde_json::Value::String(text) => Value::from(text),
        serde_json::Value::Array(items) => {
            Value::from(items.into_iter().map(from_json).collect::<Vec<Value>>())
        }
        serde_json::Value::Object(map) => {
            let entries: Vec<(Arc<str>, Value)> =
                map.into_iter().map(|(key, value)| (Arc::from(key), from_json(value))).collect();
            let index =
                entries.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
            Value::from_object(PyDict { entries, index })
        }
    }
}
