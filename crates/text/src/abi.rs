//! What the C functions share: status codes, strings that Rust owns, and the panic border.

use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

/// Mirrors LogitlabTextStatus in the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Code {
    Ok = 0,
    Invalid = 1,
    Limit = 2,
    Raised = 3,
    Internal = 4,
}

#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    /// 1-based line of a template; 0 when unknown.
    pub line: u32,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), line: 0 }
    }
}

/// Bytes owned by Rust; freed by logitlab_text_string_free.
#[repr(C)]
pub struct OwnedBytes {
    pub data: *mut u8,
    pub size: usize,
}

impl OwnedBytes {
    pub fn from_vec(bytes: Vec<u8>) -> OwnedBytes {
        let boxed = bytes.into_boxed_slice();
        let size = boxed.len();
        OwnedBytes { data: Box::into_raw(boxed) as *mut u8, size }
    }
}

/// Mirrors LogitlabTextError.
#[repr(C)]
pub struct ErrorOut {
    pub message: OwnedBytes,
    pub line: u32,
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// While one of our threads is inside `guard` the panic text is kept instead of printed: a library
/// does not write to stderr.
fn install_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GUARDED.with(|flag| flag.get()) {
                let payload = info.payload();
                let message = (payload.downcast_ref::<&str>().map(|text| text.to_string()))
                    .or_else(|| payload.downcast_ref::<String>().cloned());
                PANIC.with(|text| *text.borrow_mut() = message.unwrap_or_default());
            } else {
                previous(info);
            }
        }));
    });
}

/// Runs `body`; a panic in it becomes a Failure with code Internal.
pub fn catch<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    install_hook();
    let before = GUARDED.with(|flag| flag.replace(true));
    let outcome = catch_unwind(AssertUnwindSafe(body));
    GUARDED.with(|flag| flag.set(before));
    match outcome {
        Ok(result) => result,
        Err(_) => {
            let text = PANIC.with(|text| std::mem::take(&mut *text.borrow_mut()));
            let one_line = text.replace('\n', " ");
            Err(Failure::new(Code::Internal, format!("the text library gave up: {one_line}")))
        }
    }
}

/// `catch` with the result spread over a status code and the optional error record.
///
/// # Safety
/// `error` is null or points to writable memory.
pub unsafe fn guard(error: *mut ErrorOut, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    match catch(body) {
        Ok(()) => Code::Ok as i32,
        Err(failure) => {
            if !error.is_null() {
                error.write(ErrorOut {
                    message: OwnedBytes::from_vec(failure.message.into_bytes()),
                    line: failure.line,
                });
            }
            failure.code as i32
        }
    }
}

/// # Safety
/// `data` points to `size` readable bytes, or `size` is 0.
pub unsafe fn bytes<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if size == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data, size)
    }
}

/// # Safety
/// As `bytes`.
pub unsafe fn text<'a>(data: *const u8, size: usize, what: &str) -> Result<&'a str, Failure> {
    std::str::from_utf8(bytes(data, size)).map_err(|error| {
        Failure::new(
            Code::Invalid,
            format!("{what}: byte {} is not valid UTF-8", error.valid_up_to()),
        )
    })
}

/// # Safety
/// `value` came from this library and is freed once.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_string_free(value: OwnedBytes) {
    if !value.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(value.data, value.size)));
    }
}
