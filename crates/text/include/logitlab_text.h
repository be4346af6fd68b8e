/* C ABI of crates/text: tokenizers (tokenizer.json) and chat templates (Jinja).
 *
 * Functions return a LogitlabTextStatus. On anything but kLogitlabTextOk the outputs are untouched
 * and *error (may be null) holds a message for people; free it with logitlab_text_string_free.
 * A panic inside becomes kLogitlabTextInternal. All handles are safe to use from several threads.
 * Input pointers need not end in NUL; they may be null when the size is 0.
 */
#ifndef LOGITLAB_TEXT_H_
#define LOGITLAB_TEXT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum LogitlabTextStatus {
  kLogitlabTextOk = 0,
  kLogitlabTextInvalid = 1, /* the file, the template or the input is wrong */
  kLogitlabTextLimit = 2,   /* a limit on steps, output or threads was reached */
  kLogitlabTextRaised = 3,  /* the template called raise_exception; the message is its own */
  kLogitlabTextInternal = 4 /* a library gave up: parts of a file that contradict each other */
};

/* Bytes owned by the library. */
struct LogitlabTextString {
  uint8_t* data;
  size_t size;
};
void logitlab_text_string_free(struct LogitlabTextString value);

struct LogitlabTextError {
  struct LogitlabTextString message;
  uint32_t line; /* 1-based line of the template; 0 when there is none */
};

/* Token ids owned by the library. */
struct LogitlabTextIds {
  uint32_t* data;
  size_t size;
};
void logitlab_text_ids_free(struct LogitlabTextIds value);

typedef struct LogitlabTextTokenizer LogitlabTextTokenizer;

/* From the content of a tokenizer.json. Its truncation and padding are switched off. `more_tokens`
 * is empty or a JSON list of added tokens to add after it, in order: {content, special, normalized,
 * lstrip, rstrip, single_word, only_if_absent}. */
int32_t logitlab_text_tokenizer_new(const uint8_t* json, size_t size, const uint8_t* more_tokens,
                                    size_t more_size, LogitlabTextTokenizer** out,
                                    struct LogitlabTextError* error);
void logitlab_text_tokenizer_free(LogitlabTextTokenizer* tokenizer);

/* A JSON object: added_tokens [{id, content, special, normalized, lstrip, rstrip, single_word}] by
 * id, vocab_size (added tokens counted), base_vocab_size, max_id (null when empty), is_bpe,
 * stream_mode (LogitlabTextStreamMode), strip_left (spaces dropped from the very start of a decoded
 * text). */
int32_t logitlab_text_tokenizer_describe(const LogitlabTextTokenizer* tokenizer,
                                         struct LogitlabTextString* out,
                                         struct LogitlabTextError* error);

/* `parse_special` false: special tokens spelled out in the text are plain text (that call excludes
 * others on the same tokenizer while it runs). */
int32_t logitlab_text_tokenizer_encode(const LogitlabTextTokenizer* tokenizer, const uint8_t* text,
                                       size_t size, bool add_special, bool parse_special,
                                       struct LogitlabTextIds* out,
                                       struct LogitlabTextError* error);

/* Ids that the vocabulary lacks are skipped. */
int32_t logitlab_text_tokenizer_decode(const LogitlabTextTokenizer* tokenizer, const uint32_t* ids,
                                       size_t count, bool skip_special,
                                       struct LogitlabTextString* out,
                                       struct LogitlabTextError* error);

/* How a decoder can be run one token at a time. */
enum LogitlabTextStreamMode {
  kLogitlabTextStreamWindow = 0, /* only by decoding windows of ids */
  kLogitlabTextStreamBytes = 1, /* all bytes in a row, then UTF-8 with U+FFFD for what is invalid */
  kLogitlabTextStreamPieces = 2 /* pieces of text; a run of single bytes is one unit: UTF-8, or one
                                   U+FFFD a byte when the run as a whole is not UTF-8 */
};

/* The texts of one token. */
enum LogitlabTextTokenText {
  kLogitlabTextTokenName = 0,             /* as the vocabulary spells it */
  kLogitlabTextTokenPiece = 1,            /* the bytes that it stands for */
  kLogitlabTextTokenStream = 2,           /* what it adds in a token-by-token decode */
  kLogitlabTextTokenStreamSkipSpecial = 3 /* the same, special tokens absent */
};

/* *found: 0 no such token (or skipped), 1 text, 2 a byte of a run (kLogitlabTextStreamPieces). */
int32_t logitlab_text_tokenizer_token(const LogitlabTextTokenizer* tokenizer, uint32_t id,
                                      int32_t what, struct LogitlabTextString* out, int32_t* found,
                                      struct LogitlabTextError* error);

/* *out: the id, or -1. */
int32_t logitlab_text_tokenizer_token_id(const LogitlabTextTokenizer* tokenizer,
                                         const uint8_t* token, size_t size, int64_t* out,
                                         struct LogitlabTextError* error);

typedef struct LogitlabTextTemplate LogitlabTextTemplate;

struct LogitlabTextRenderLimits {
  uint64_t steps;        /* instructions, and one for every 64 bytes produced on the way */
  uint64_t output_bytes; /* of the rendered text */
  uint64_t seconds;      /* of wall time; the thread of a template that is still running is left */
};

int32_t logitlab_text_template_new(const uint8_t* source, size_t size, LogitlabTextTemplate** out,
                                   struct LogitlabTextError* error);
void logitlab_text_template_free(LogitlabTextTemplate* chat_template);

/* `variables`: a JSON object, the template's whole context. */
int32_t logitlab_text_template_render(const LogitlabTextTemplate* chat_template,
                                      const uint8_t* variables, size_t size,
                                      struct LogitlabTextRenderLimits limits,
                                      struct LogitlabTextString* out,
                                      struct LogitlabTextError* error);

#ifdef __cplusplus
}
#endif

#endif /* LOGITLAB_TEXT_H_ */
