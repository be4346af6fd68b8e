//! Chat templates with the behaviour of transformers' Jinja environment.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior};

use crate::abi::{catch, guard, text, Code, ErrorOut, Failure, OwnedBytes};
use crate::{filters, python, strings, syntax, tojson};

/// Deep enough for every recursive macro that ends, and within STACK_BYTES by a wide margin.
const RECURSION_LIMIT: usize = 400;
const STACK_BYTES: usize = 64 << 20;
const NAME: &str = "chat template";
/// Marks the detail of an error that the template itself raised.
const RAISED: &str = "\u{0}raised: ";

pub struct TemplateHandle {
    environment: Environment<'static>,
}

/// Work and output that one rendering may use. Mirrors LogitlabTextRenderLimits.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RenderLimits {
    pub steps: u64,
    pub output_bytes: u64,
    pub seconds: u64,
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{}", python::value_str(message))))
}

/// datetime.now().strftime(format): local time without a zone, so %z and %Z are empty.
fn strftime_now(format: &str) -> Result<String, Error> {
    let bad = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {what}"));
    if format.len() > 4096 || format.contains('\0') {
        return Err(bad("the format is too long or holds a NUL"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| bad("no clock"))?;
    let mut prepared = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            prepared.push(c);
            continue;
        }
        match chars.next() {
            Some('f') => prepared.push_str(&format!("{:06}", now.subsec_micros())),
            Some('z' | 'Z') => {}
            Some(other) => {
                prepared.push('%');
                prepared.push(other);
            }
            None => prepared.push('%'),
        }
    }
    let pattern = std::ffi::CString::new(prepared).map_err(|_| bad("the format holds a NUL"))?;
    let mut buffer = vec![0u8; 64 << 10];
    let written = unsafe {
        let seconds = now.as_secs() as libc::time_t;
        let mut parts: libc::tm = std::mem::zeroed();
        libc::localtime_r(&seconds, &mut parts);
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), pattern.as_ptr(), &parts)
    };
    buffer.truncate(written);
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// Python's `format % values`, through the `format` filter: it refuses huge widths.
fn percent_format(state: &mut State, format: &Value, operand: &Value) -> Result<Value, Error> {
    if format.as_str().is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "% needs a string or a number"));
    }
    let mut arguments = vec![format.clone()];
    if operand.is_tuple() {
        arguments.extend(operand.try_iter()?);
    } else {
        arguments.push(operand.clone());
    }
    state.apply_filter("format", &arguments)
}

// Jinja's tests where minijinja's answer differs from Python's.
fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

fn is_sequence(value: &Value) -> bool {
    let kind = value.kind();
    // Python's undefined has a length and takes subscripts, so far as the test looks.
    matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
}

fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

fn iterable(value: Value) -> Result<Value, Error> {
    if value.is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "none cannot be iterated over"));
    }
    Ok(value)
}

fn is_callable(value: &Value) -> bool {
    let name = format!("{value:?}");
    value.kind() == ValueKind::Plain && (name.contains("unction") || name.contains("macro"))
}

fn to_string_filter(value: &Value) -> Value {
    match value.kind() {
        ValueKind::String => value.clone(),
        _ => Value::from(python::value_str(value)),
    }
}

fn build_environment() -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_recursion_limit(RECURSION_LIMIT);
    env.set_formatter(python::formatter);
    env.set_unknown_method_callback(strings::unknown_method);
    env.add_function("raise_exception", |message: &Value| raise_exception(message));
    env.add_function("strftime_now", |format: &str| strftime_now(format));
    env.add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.0));
    env.add_function("joiner", minijinja_contrib::globals::joiner);
    env.add_function(syntax::PERCENT_FUNCTION, percent_format);
    env.add_filter("tojson", tojson::filter);
    env.add_filter("trim", |value: &Value, chars: Option<&str>| strings::trim(value, chars));
    env.add_filter("string", to_string_filter);
    filters::add_to(&mut env);
    env.add_test("number", is_number);
    env.add_function(syntax::ITERABLE_FUNCTION, iterable);
    env.add_test("iterable", is_iterable);
    env.add_test("sequence", is_sequence);
    env.add_test("callable", is_callable);
    // What Jinja does not have must not work here either: such a template is broken elsewhere.
    env.remove_global("debug");
    for name in ["split", "lines", "bool", "chain", "zip"] {
        env.remove_filter(name);
    }
    for name in ["startingwith", "endingwith", "safe", "int"] {
        env.remove_test(name);
    }
    Ok(env)
}

fn failure_of(error: &Error, limits: Option<&RenderLimits>) -> Failure {
    let line = error.line().unwrap_or(0) as u32;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut innermost = error;
    while let Some(current) = cause {
        if let Some(current) = current.downcast_ref::<Error>() {
            innermost = current;
            if let Some(message) = current.detail().and_then(|detail| detail.strip_prefix(RAISED)) {
                return Failure { code: Code::Raised, message: message.to_string(), line };
            }
            if current.kind() == ErrorKind::OutOfFuel {
                let steps = limits.map_or(0, |limits| limits.steps);
                let message = format!("still running after {steps} steps; does it loop for ever?");
                return Failure { code: Code::Limit, message, line };
            }
        }
        cause = current.source();
    }
    let kind = match innermost.kind() {
        ErrorKind::SyntaxError => "cannot be parsed".to_string(),
        kind => kind.to_string(),
    };
    let message = match innermost.detail() {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind,
    };
    Failure { code: Code::Invalid, message, line }
}

/// Runs `body` on a thread whose stack size is known: templates may nest and recurse, and the
/// caller's stack may be small.
fn on_big_stack<T: Send>(body: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = builder
            .spawn_scoped(scope, || catch(body))
            .map_err(|error| Failure::new(Code::Limit, format!("no thread to render on: {error}")))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(Failure::new(Code::Internal, "the rendering thread died")))
    })
}

/// As on_big_stack, for work that the step limit does not bound: one step may compare, copy or print
/// a value whose parts share other parts, which takes time beyond any count. Nothing can stop such a
/// thread, so it is left to itself after `seconds`.
fn within_seconds<T: Send + 'static>(
    seconds: u64,
    body: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || sender.send(catch(body)))
        .map_err(|error| Failure::new(Code::Limit, format!("no thread to render on: {error}")))?;
    match receiver.recv_timeout(Duration::from_secs(seconds)) {
        Ok(outcome) => outcome,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let message = format!("still running after {seconds} s; does it loop for ever?");
            Err(Failure::new(Code::Limit, message))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(Failure::new(Code::Internal, "the rendering thread died"))
        }
    }
}

struct BoundedWriter<'a> {
    bytes: Vec<u8>,
    limit: usize,
    is_full: &'a AtomicBool,
}

impl io::Write for BoundedWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > self.limit - self.bytes.len() {
            self.is_full.store(true, Ordering::Relaxed);
            return Err(io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TemplateHandle {
    fn compile(source: &str) -> Result<TemplateHandle, Failure> {
        let prepared = syntax::prepare(source)?;
        on_big_stack(|| {
            let fail = |error: Error| failure_of(&error, None);
            let mut environment = build_environment().map_err(fail)?;
            environment.add_template_owned(NAME, prepared).map_err(fail)?;
            Ok(TemplateHandle { environment })
        })
    }

    fn render(&self, variables: &str, limits: RenderLimits) -> Result<Vec<u8>, Failure> {
        let mut environment = self.environment.clone();
        let variables = variables.to_string();
        within_seconds(limits.seconds, move || {
            environment.set_fuel(Some(limits.steps));
            render(&environment, &variables, &limits)
        })
    }
}

fn render(
    environment: &Environment<'static>,
    variables: &str,
    limits: &RenderLimits,
) -> Result<Vec<u8>, Failure> {
    let json: serde_json::Value = serde_json::from_str(variables)
        .map_err(|error| Failure::new(Code::Invalid, format!("template variables: {error}")))?;
    if !json.is_object() {
        return Err(Failure::new(Code::Invalid, "template variables: want a JSON object"));
    }
    let context = python::from_json(json);
    let fail = |error: Error| failure_of(&error, Some(limits));
    let template = environment.get_template(NAME).map_err(fail)?;
    let is_full = Arc::new(AtomicBool::new(false));
    let limit = limits.output_bytes as usize;
    let mut writer = BoundedWriter { bytes: Vec::new(), limit, is_full: &is_full };
    let outcome = template.render_captured_to(context, &mut writer).map(|_| ());
    if is_full.load(Ordering::Relaxed) {
        let message = format!("output of more than {limit} bytes; does it loop for ever?");
        return Err(Failure::new(Code::Limit, message));
    }
    outcome.map_err(fail)?;
    Ok(writer.bytes)
}

/// # Safety
/// Pointers as the header says.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_template_new(
    source: *const u8,
    size: usize,
    out: *mut *mut TemplateHandle,
    error: *mut ErrorOut,
) -> i32 {
    guard(error, || {
        let handle = TemplateHandle::compile(text(source, size, "template")?)?;
        out.write(Box::into_raw(Box::new(handle)));
        Ok(())
    })
}

/// # Safety
/// `handle` came from logitlab_text_template_new and is freed once.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_template_free(handle: *mut TemplateHandle) {
    if !handle.is_null() {
        let _ = catch(|| {
            drop(Box::from_raw(handle));
            Ok(())
        });
    }
}

/// # Safety
/// Pointers as the header says.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_template_render(
    handle: *const TemplateHandle,
    variables: *const u8,
    size: usize,
    limits: RenderLimits,
    out: *mut OwnedBytes,
    error: *mut ErrorOut,
) -> i32 {
    guard(error, || {
        let rendered = (*handle).render(text(variables, size, "template variables")?, limits)?;
        out.write(OwnedBytes::from_vec(rendered));
        Ok(())
    })
}
