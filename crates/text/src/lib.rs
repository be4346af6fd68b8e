//! Tokenizers and chat templates for C++. Every function of the C ABI (include/logitlab_text.h)
//! goes through `guard`: a panic becomes an error value and never crosses the border.

mod abi;
mod filters;
mod python;
mod strings;
mod syntax;
mod template;
mod tojson;
mod tokenizer;
