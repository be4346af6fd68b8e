//! A pass over the template's tags before minijinja sees them: what transformers' Jinja has and
//! minijinja has not, and the other way round.
//!
//! - `{% generation %}` ... `{% endgeneration %}` is transparent: it becomes a `with` block, which has
//!   a scope of its own as the original has.
//! - `do` is not among transformers' extensions and is refused.
//! - `{% for x in none %}` is an error as in Python; minijinja takes none for an empty list.
//! - `'...' % value` becomes a call of the `format` machinery; minijinja's `%` knows numbers only.

use crate::abi::{Code, Failure};

/// Name of the global function that carries out `'...' % value`.
pub const PERCENT_FUNCTION: &str = "logitlab_percent_format";

/// Name of the global function that refuses to iterate over none.
pub const ITERABLE_FUNCTION: &str = "logitlab_iterable";

fn line_of(source: &str, at: usize) -> u32 {
    source[..at].matches('\n').count() as u32 + 1
}

/// End of the string literal that starts at `at`, or the end of the source.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let mut next = at + 1;
    while next < bytes.len() {
        match bytes[next] {
            b'\\' => next += 2,
            byte if byte == quote => return next + 1,
            _ => next += 1,
        }
    }
    bytes.len()
}

/// Offset of the tag's closing `%}` or `}}`, strings skipped.
fn tag_end(bytes: &[u8], mut at: usize, close: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'\'' => at = string_end(bytes, at),
            _ if depth == 0 && bytes[at..].starts_with(close) => return Some(at),
            b'(' | b'[' | b'{' => {
                depth += 1;
                at += 1;
            }
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    None
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at].is_ascii_whitespace() {
        at += 1;
    }
    at
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// End of the operand of `%` that starts at `at`: a sign, a literal, name or bracket, and whatever
/// attributes, calls, subscripts and filters follow it.
fn operand_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && (bytes[at] == b'-' || bytes[at] == b'+') {
        at = skip_space(bytes, at + 1);
    }
    let bracket = |at: usize| {
        let close = match bytes[at] {
            b'(' => b")",
            b'[' => b"]",
            _ => b"}",
        };
        tag_end(bytes, at + 1, close).map_or(bytes.len(), |end| end + 1)
    };
    if at >= bytes.len() {
        return at;
    }
    at = match bytes[at] {
        b'"' | b'\'' => string_end(bytes, at),
        b'(' | b'[' | b'{' => bracket(at),
        _ => at + bytes[at..].iter().take_while(|byte| is_word(**byte)).count(),
    };
    loop {
        let next = skip_space(bytes, at);
        if next >= bytes.len() {
            return at;
        }
        match bytes[next] {
            b'(' | b'[' => at = bracket(next),
            b'.' | b'|' => {
                let name = skip_space(bytes, next + 1);
                at = name + bytes[name..].iter().take_while(|byte| is_word(**byte)).count();
            }
            _ => return at,
        }
    }
}

/// Nesting of `'...' % (...)` beyond this is refused: every level reads its operand again.
const MAX_PERCENT_DEPTH: usize = 50;

/// Rewrites `'literal' % operand` inside one tag's expression. None: nested too deeply.
fn rewrite_percent(expression: &str, depth: usize) -> Option<String> {
    if depth > MAX_PERCENT_DEPTH {
        return None;
    }
    let bytes = expression.as_bytes();
    let mut out = String::with_capacity(expression.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'"' && bytes[at] != b'\'' {
            let next = expression[at..].find(['"', '\'']).map_or(bytes.len(), |found| at + found);
            out.push_str(&expression[at..next]);
            at = next;
            continue;
        }
        let end = string_end(bytes, at).min(bytes.len());
        let operator = skip_space(bytes, end);
        if operator < bytes.len() && bytes[operator] == b'%' {
            let start = skip_space(bytes, operator + 1);
            let stop = operand_end(bytes, start);
            out.push_str(PERCENT_FUNCTION);
            out.push('(');
            out.push_str(&expression[at..end]);
            out.push_str(", ");
            out.push_str(&rewrite_percent(&expression[start..stop], depth + 1)?);
            out.push(')');
            at = stop;
        } else {
            out.push_str(&expression[at..end]);
            at = end;
        }
    }
    Some(out)
}

fn rewrite_expression(source: &str, expression: &str, at: usize) -> Result<String, Failure> {
    rewrite_percent(expression, 0).ok_or_else(|| Failure {
        code: Code::Invalid,
        message: format!("cannot be parsed: '%' nested more than {MAX_PERCENT_DEPTH} deep"),
        line: line_of(source, at),
    })
}

/// Offsets of a word outside strings and brackets, from `at` on.
fn find_word(bytes: &[u8], mut at: usize, words: &[&[u8]]) -> Option<(usize, usize)> {
    let mut depth = 0usize;
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'\'' => at = string_end(bytes, at),
            b'(' | b'[' | b'{' => {
                depth += 1;
                at += 1;
            }
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            byte if is_word(byte) => {
                let end = at + bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
                if depth == 0 && words.contains(&&bytes[at..end]) {
                    return Some((at, end));
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    None
}

/// ` for x in E if C ` with E wrapped in a call that checks it.
fn rewrite_for(body: &str) -> String {
    let bytes = body.as_bytes();
    let Some((_, start)) = find_word(bytes, 0, &[b"in"]) else {
        return body.to_string();
    };
    let end = match find_word(bytes, start, &[b"if", b"recursive"]) {
        Some((end, _)) => end,
        None => bytes.len(),
    };
    format!("{} {ITERABLE_FUNCTION}(({})) {}", &body[..start], &body[start..end], &body[end..])
}

fn rewrite_block(source: &str, inner: &str, at: usize, out: &mut String) -> Result<(), Failure> {
    let sign_before = inner.starts_with(['-', '+']) as usize;
    let sign_after = inner.len() - (inner.len() > sign_before && inner.ends_with(['-', '+'])) as usize;
    let body = &inner[sign_before..sign_after];
    let name: String = body.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let replacement = match name.as_str() {
        "generation" if body.trim() == "generation" => " with ".to_string(),
        "endgeneration" if body.trim() == "endgeneration" => " endwith ".to_string(),
        "do" => {
            return Err(Failure {
                code: Code::Invalid,
                message: "cannot be parsed: unknown tag 'do'".to_string(),
                line: line_of(source, at),
            })
        }
        "for" => rewrite_expression(source, &rewrite_for(body), at)?,
        _ => rewrite_expression(source, body, at)?,
    };
    out.push_str(&inner[..sign_before]);
    out.push_str(&replacement);
    out.push_str(&inner[sign_after..]);
    Ok(())
}

/// The offset just after the `{% endraw %}` that closes a raw block whose tag ends at `at`.
fn raw_end(source: &str, mut at: usize) -> usize {
    while let Some(found) = source[at..].find("{%") {
        let inside = source[at + found + 2..].trim_start_matches(['-', '+']).trim_start();
        at += found + 2;
        if inside.starts_with("endraw") {
            return source[at..].find("%}").map_or(source.len(), |end| at + end + 2);
        }
    }
    source.len()
}

/// The template that minijinja compiles. Line numbers stay as they were.
pub fn prepare(template: &str) -> Result<String, Failure> {
    let source = template.replace("\r\n", "\n").replace('\r', "\n");
    let bytes = source.as_bytes();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while let Some(found) = source[at..].find('{') {
        let open = at + found;
        out.push_str(&source[at..open]);
        let kind = bytes.get(open + 1).copied();
        let (close, is_block): (&[u8], bool) = match kind {
            Some(b'%') => (b"%}", true),
            Some(b'{') => (b"}}", false),
            Some(b'#') => {
                let end = source[open..].find("#}").map_or(source.len(), |end| open + end + 2);
                out.push_str(&source[open..end]);
                at = end;
                continue;
            }
            _ => {
                out.push('{');
                at = open + 1;
                continue;
            }
        };
        // An unclosed tag is minijinja's to report.
        let Some(end) = tag_end(bytes, open + 2, close) else {
            out.push_str(&source[open..]);
            return Ok(out);
        };
        let inner = &source[open + 2..end];
        out.push_str(&source[open..open + 2]);
        if is_block {
            rewrite_block(&source, inner, open, &mut out)?;
        } else {
            out.push_str(&rewrite_expression(&source, inner, open)?);
        }
        at = end + 2;
        out.push_str(&source[end..at]);
        if is_block && inner.trim_matches(['-', '+']).trim() == "raw" {
            let after = raw_end(&source, at);
            out.push_str(&source[at..after]);
            at = after;
        }
    }
    out.push_str(&source[at..]);
    Ok(out)
}
