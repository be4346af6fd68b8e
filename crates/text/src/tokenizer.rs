//! tokenizer.json behind the C ABI.

use std::collections::HashMap;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::json;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::{AddedToken, Tokenizer};

use crate::abi::{bytes, guard, text, Code, ErrorOut, Failure, OwnedBytes};

/// How decoding can be done one token at a time. Mirrors LogitlabTextStreamMode.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum StreamMode {
    /// The decoder looks at neighbours in a way not known here.
    Window = 0,
    /// All tokens' bytes in a row, decoded as UTF-8 with replacement.
    Bytes = 1,
    /// SentencePiece: text pieces, runs of <0xHH> bytes, spaces stripped from the very start.
    Pieces = 2,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PieceKind {
    Plain,
    ByteLevel,
    SentencePiece,
}

pub struct TokenizerHandle {
    // The write side is taken only to encode with special tokens as plain text: that mode is a field
    // of the tokenizer itself.
    inner: RwLock<Tokenizer>,
    byte_of_char: HashMap<char, u8>,
    mode: StreamMode,
    strip_left: usize,
    kind: PieceKind,
    is_bpe: bool,
}

/// GPT-2's table: printable bytes stand for themselves, the other 68 for U+0100 and up.
fn byte_alphabet() -> HashMap<char, u8> {
    let mut table = HashMap::new();
    let mut next = 0u32;
    for byte in 0u32..256 {
        let printable =
            (0x21..=0x7e).contains(&byte) || (0xa1..=0xac).contains(&byte) || byte >= 0xae;
        let symbol = if printable {
            byte
        } else {
            next += 1;
            0xff + next
        };
        table.insert(char::from_u32(symbol).expect("below U+0144"), byte as u8);
    }
    table
}

/// The decoder as JSON: most of its fields are private to the crate.
fn decoder_json(decoder: &DecoderWrapper) -> serde_json::Value {
    serde_json::to_value(decoder).unwrap_or(serde_json::Value::Null)
}

fn decoder_steps(decoder: &serde_json::Value) -> Vec<serde_json::Value> {
    match decoder["type"].as_str() {
        Some("Sequence") => decoder["decoders"].as_array().cloned().unwrap_or_default(),
        Some(_) => vec![decoder.clone()],
        None => vec![],
    }
}

fn is_marker_replace(step: &serde_json::Value) -> bool {
    step["type"] == "Replace"
        && step["pattern"]["String"] == "\u{2581}"
        && step["content"] == " "
}

fn stream_mode(steps: &[serde_json::Value]) -> (StreamMode, usize) {
    let types: Vec<&str> = steps.iter().map(|s| s["type"].as_str().unwrap_or("")).collect();
    match types.as_slice() {
        ["ByteLevel"] => (StreamMode::Bytes, 0),
        ["Replace", "ByteFallback", "Fuse", rest @ ..] if is_marker_replace(&steps[0]) => {
            match rest {
                [] => (StreamMode::Pieces, 0),
                ["Strip"] if steps[3]["content"] == " " && steps[3]["stop"] == 0 => {
                    (StreamMode::Pieces, steps[3]["start"].as_u64().unwrap_or(0) as usize)
                }
                _ => (StreamMode::Window, 0),
            }
        }
        _ => (StreamMode::Window, 0),
    }
}

fn piece_kind(steps: &[serde_json::Value]) -> PieceKind {
    let has = |name: &str| steps.iter().any(|s| s["type"] == name);
    if has("ByteLevel") {
        PieceKind::ByteLevel
    } else if has("ByteFallback") || has("Metaspace") || steps.iter().any(is_marker_replace) {
        PieceKind::SentencePiece
    } else {
        PieceKind::Plain
    }
}

/// "<0x0A>" -> 10, as the ByteFallback decoder reads it.
fn fallback_byte(token: &str) -> Option<u8> {
    if token.len() == 6 && token.starts_with("<0x") && token.ends_with('>') {
        u8::from_str_radix(&token[3..5], 16).ok()
    } else {
        None
    }
}

/// Adds tokens that other files of the model name. `json` is empty or a list of
/// {content, special, normalized, lstrip, rstrip, single_word, only_if_absent}.
fn add_tokens(tokenizer: &mut Tokenizer, json: &[u8]) -> Result<(), Failure> {
    if json.is_empty() {
        return Ok(());
    }
    let invalid = |message: String| Failure::new(Code::Invalid, message);
    let list: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| invalid(format!("added tokens: {error}")))?;
    for entry in list.as_array().into_iter().flatten() {
        let content = entry["content"].as_str().unwrap_or_default();
        let is_known = tokenizer.get_added_vocabulary().get_vocab().contains_key(content);
        if content.is_empty() || (is_known && entry["only_if_absent"] == true) {
            continue;
        }
        let flag = |name: &str, default: bool| entry[name].as_bool().unwrap_or(default);
        let special = flag("special", false);
        let token = AddedToken::from(content, special)
            .normalized(flag("normalized", !special))
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false))
            .single_word(flag("single_word", false));
        tokenizer.add_tokens([token]).map_err(|error| invalid(error.to_string()))?;
    }
    Ok(())
}

impl TokenizerHandle {
    fn load(json: &[u8], more_tokens: &[u8]) -> Result<TokenizerHandle, Failure> {
        let mut tokenizer = Tokenizer::from_bytes(json)
            .map_err(|error| Failure::new(Code::Invalid, error.to_string()))?;
        add_tokens(&mut tokenizer, more_tokens)?;
        let limits = tokenizer.with_truncation(None);
        limits.map_err(|error| Failure::new(Code::Invalid, error.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer.set_encode_special_tokens(false);
        let steps = match tokenizer.get_decoder() {
            Some(decoder) => decoder_steps(&decoder_json(decoder)),
            None => vec![],
        };
        let (mode, strip_left) = stream_mode(&steps);
        let is_bpe = matches!(tokenizer.get_model(), ModelWrapper::BPE(_));
        Ok(TokenizerHandle {
            inner: RwLock::new(tokenizer),
            byte_of_char: byte_alphabet(),
            mode,
            strip_left,
            kind: piece_kind(&steps),
            is_bpe,
        })
    }

    // A panic inside the library leaves the tokenizer as it was (encoding changes only its cache), so
    // a poisoned lock is still good; the mode is set anew under the write lock.
    fn read(&self) -> RwLockReadGuard<'_, Tokenizer> {
        self.inner.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tokenizer> {
        self.inner.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, Failure> {
        let invalid = |error: tokenizers::Error| Failure::new(Code::Invalid, error.to_string());
        if parse_special {
            let tokenizer = self.read();
            let encoding = tokenizer.encode_fast(text, add_special).map_err(invalid)?;
            return Ok(encoding.get_ids().to_vec());
        }
        let mut tokenizer = self.write();
        tokenizer.set_encode_special_tokens(true);
        let outcome = crate::abi::catch(|| {
            let encoding = tokenizer.encode_fast(text, add_special).map_err(invalid)?;
            Ok(encoding.get_ids().to_vec())
        });
        tokenizer.set_encode_special_tokens(false);
        outcome
    }

    fn decode_bytes(&self, token: &str) -> Vec<u8> {
        token
            .chars()
            .map(|c| self.byte_of_char.get(&c).copied())
            .collect::<Option<Vec<u8>>>()
            .unwrap_or_else(|| token.as_bytes().to_vec())
    }

    /// The bytes that a token stands for; an added token stands for its own text.
    fn piece(&self, id: u32) -> Option<Vec<u8>> {
        let tokenizer = self.read();
        if let Some(added) = tokenizer.get_added_vocabulary().get_added_tokens_decoder().get(&id) {
            return Some(added.content.as_bytes().to_vec());
        }
        let token = tokenizer.id_to_token(id)?;
        Some(match self.kind {
            PieceKind::Plain => token.into_bytes(),
            PieceKind::ByteLevel => self.decode_bytes(&token),
            PieceKind::SentencePiece => match fallback_byte(&token) {
                Some(byte) => vec![byte],
                None => token.replace('\u{2581}', " ").into_bytes(),
            },
        })
    }

    /// What one token adds in a token-by-token decode: (is a byte of a run, bytes).
    fn stream_piece(&self, id: u32, skip_special: bool) -> Option<(bool, Vec<u8>)> {
        let tokenizer = self.read();
        let token = tokenizer.id_to_token(id)?;
        if skip_special && tokenizer.get_added_vocabulary().is_special_token(&token) {
            return None;
        }
        Some(match self.mode {
            StreamMode::Bytes => (false, self.decode_bytes(&token)),
            StreamMode::Pieces => {
                let replaced = token.replace('\u{2581}', " ");
                match fallback_byte(&replaced) {
                    Some(byte) => (true, vec![byte]),
                    None => (false, replaced.into_bytes()),
                }
            }
            StreamMode::Window => (false, vec![]),
        })
    }

    fn describe(&self) -> serde_json::Value {
        let tokenizer = self.read();
        let decoder = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        let mut added: Vec<_> = decoder.iter().collect();
        added.sort_by_key(|(id, _)| **id);
        let added: Vec<_> = added
            .into_iter()
            .map(|(id, token)| {
                json!({"id": id, "content": token.content, "special": token.special,
                       "normalized": token.normalized, "lstrip": token.lstrip,
                       "rstrip": token.rstrip, "single_word": token.single_word})
            })
            .collect();
        let max_id = tokenizer.get_vocab(true).into_values().max();
        json!({
            "added_tokens": added,
            "vocab_size": tokenizer.get_vocab_size(true),
            "base_vocab_size": tokenizer.get_vocab_size(false),
            "max_id": max_id,
            "is_bpe": self.is_bpe,
            "stream_mode": self.mode as i32,
            "strip_left": self.strip_left,
        })
    }
}

/// # Safety
/// Pointers as the header says.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_tokenizer_new(
    json: *const u8,
    size: usize,
    more_tokens: *const u8,
    more_size: usize,
    out: *mut *mut TokenizerHandle,
    error: *mut ErrorOut,
) -> i32 {
    guard(error, || {
        let handle = TokenizerHandle::load(bytes(json, size), bytes(more_tokens, more_size))?;
        out.write(Box::into_raw(Box::new(handle)));
        Ok(())
    })
}

/// # Safety
/// `handle` came from logitlab_text_tokenizer_new and is freed once.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_tokenizer_free(handle: *mut TokenizerHandle) {
    if !handle.is_null() {
        let _ = crate::abi::catch(|| {
            drop(Box::from_raw(handle));
            Ok(())
        });
    }
}

/// # Safety
/// Pointers as the header says.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_tokenizer_describe(
    handle: *const TokenizerHandle,
    out: *mut OwnedBytes,
    error: *mut ErrorOut,
) -> i32 {
    guard(error, || {
        out.write(OwnedBytes::from_vec((*handle).describe().to_string().into_bytes()));
        Ok(())
    })
}

/// # Safety
/// Pointers as the header says.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_tokenizer_encode(
    handle: *const TokenizerHandle,
    input: *const u8,
    size: usize,
    add_special: bool,
    parse_special: bool,
    out: *mut IdList,
    error: *mut ErrorOut,
) -> i32 {
    guard(error, || {
        let ids = (*handle).encode(text(input, size, "text")?, add_special, parse_special)?;
        let boxed = ids.into_boxed_slice();
        let count = boxed.len();
        out.write(IdList { data: Box::into_raw(boxed) as *mut u32, size: count });
        Ok(())
    })
}

/// Mirrors LogitlabTextIds.
#[repr(C)]
pub struct IdList {
    pub data: *mut u32,
    pub size: usize,
}

/// # Safety
/// `value` came from this library and is freed once.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_ids_free(value: IdList) {
    if !value.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(value.data, value.size)));
    }
}

/// # Safety
/// Pointers as the header says.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_tokenizer_decode(
    handle: *const TokenizerHandle,
    ids: *const u32,
    count: usize,
    skip_special: bool,
    out: *mut OwnedBytes,
    error: *mut ErrorOut,
) -> i32 {
    guard(error, || {
        let ids = if count == 0 { &[] } else { std::slice::from_raw_parts(ids, count) };
        let decoded = (*handle)
            .read()
            .decode(ids, skip_special)
            .map_err(|error| Failure::new(Code::Invalid, error.to_string()))?;
        out.write(OwnedBytes::from_vec(decoded.into_bytes()));
        Ok(())
    })
}

/// Which of the three texts of a token logitlab_text_tokenizer_token gives.
const TOKEN_NAME: i32 = 0;
const TOKEN_PIECE: i32 = 1;
const TOKEN_STREAM: i32 = 2;
const TOKEN_STREAM_SKIP_SPECIAL: i32 = 3;

/// # Safety
/// Pointers as the header says.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_tokenizer_token(
    handle: *const TokenizerHandle,
    id: u32,
    what: i32,
    out: *mut OwnedBytes,
    found: *mut i32,
    error: *mut ErrorOut,
) -> i32 {
    guard(error, || {
        let handle = &*handle;
        let answer = match what {
            TOKEN_NAME => {
                let tokenizer = handle.read();
                let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
                let name = match added.get(&id) {
                    Some(token) => Some(token.content.clone()),
                    None => tokenizer.id_to_token(id),
                };
                name.map(|token| (false, token.into_bytes()))
            }
            TOKEN_PIECE => handle.piece(id).map(|piece| (false, piece)),
            TOKEN_STREAM => handle.stream_piece(id, false),
            TOKEN_STREAM_SKIP_SPECIAL => handle.stream_piece(id, true),
            _ => return Err(Failure::new(Code::Internal, format!("token text kind {what}"))),
        };
        match answer {
            None => found.write(0),
            Some((is_run_byte, piece)) => {
                found.write(if is_run_byte { 2 } else { 1 });
                out.write(OwnedBytes::from_vec(piece));
            }
        }
        Ok(())
    })
}

/// # Safety
/// Pointers as the header says.
#[no_mangle]
pub unsafe extern "C" fn logitlab_text_tokenizer_token_id(
    handle: *const TokenizerHandle,
    token: *const u8,
    size: usize,
    out: *mut i64,
    error: *mut ErrorOut,
) -> i32 {
    guard(error, || {
        let id = (*handle).read().token_to_id(text(token, size, "token")?);
        out.write(id.map_or(-1, i64::from));
        Ok(())
    })
}
