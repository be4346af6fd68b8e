#include "text/tokenizer.h"

#include <thread>

#include <gtest/gtest.h>

#include "text/stream_decoder.h"
#include "text/test_vocab.h"
#include "text/tokenizer_json.h"

namespace logitlab {
namespace {

TEST(Tokenizer, RefusesWhatIsNotATokenizer) {
  const std::string deep(200'000, '[');
  for (const std::string& json :
       {std::string(), std::string("{"), std::string("nonsense"), std::string("[]"),
        std::string("{}"), std::string(R"({"model": {"type": "BPE", "vocab": [], "merges": 3}})"),
        std::string("\xff\xfe\x00", 3), deep}) {
    const auto made = Tokenizer::from_json(json, "dir/tokenizer.json");
    ASSERT_FALSE(made.has_value()) << json.substr(0, 40);
    EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(exit_code(made.error().code), 3);
    EXPECT_EQ(made.error().message.rfind("dir/tokenizer.json: ", 0), 0U) << made.error().message;
  }
}

TEST(Tokenizer, KnowsItsTokens) {
  const auto smollm = tokenizer_from_file("smollm");
  ASSERT_NE(smollm, nullptr);
  EXPECT_EQ(smollm->vocab_size(), smollm->max_id() + 1);
  ASSERT_EQ(smollm->added_tokens().size(), 4U);
  EXPECT_EQ(smollm->added_tokens()[2].content, "<|im_end|>");
  EXPECT_TRUE(smollm->is_special(2));
  EXPECT_FALSE(smollm->is_special(3));  // <think>
  EXPECT_EQ(smollm->token_id("<|im_end|>"), 2);
  EXPECT_EQ(smollm->token_id("no such token"), std::nullopt);
  const auto space_the = smollm->token_id("\xC4\xA0the");  // U+0120 stands for a space
  ASSERT_TRUE(space_the.has_value());
  EXPECT_EQ(smollm->piece(*space_the), " the");
  EXPECT_EQ(smollm->piece(2), "<|im_end|>");
  EXPECT_EQ(smollm->piece(smollm->max_id() + 1), std::nullopt);
  EXPECT_EQ(smollm->piece(-1), std::nullopt);
  EXPECT_FALSE(smollm->decode(std::vector<TokenId>{1, -1}).has_value());
}

// All 256 bytes have a token whose piece is that byte, half characters included.
TEST(Tokenizer, PiecesCoverAllBytes) {
  for (const char* kind : {"gpt2", "spm"}) {
    const auto tokenizer = tokenizer_from_file(kind);
    ASSERT_NE(tokenizer, nullptr);
    std::vector<bool> seen(256, false);
    for (TokenId id = 0; id <= tokenizer->max_id(); ++id) {
      const auto piece = tokenizer->piece(id);
      ASSERT_TRUE(piece.has_value());
      if (piece->size() == 1) {
        seen[static_cast<unsigned char>((*piece)[0])] = true;
      }
    }
    EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 256) << kind;
  }
}

TEST(Tokenizer, EncodesFromSeveralThreadsInBothModes) {
  const auto tokenizer = tokenizer_from_file("smollm");
  ASSERT_NE(tokenizer, nullptr);
  const EncodeOptions literal{.parse_special = false};
  const std::string text = "Hi <|im_end|> there";
  const auto want_parsed = tokenizer->encode(text).value();
  const auto want_literal = tokenizer->encode(text, literal).value();
  ASSERT_NE(want_parsed, want_literal);
  std::vector<int> n_wrong(4, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < n_wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const bool is_literal = t % 2 == 0;
        const auto ids = tokenizer->encode(text, is_literal ? literal : EncodeOptions{});
        n_wrong[t] += ids != (is_literal ? want_literal : want_parsed);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(n_wrong, std::vector<int>(4, 0));
}

TEST(StreamDecoder, HoldsHalfCharactersAndFlushesThem) {
  const auto gpt2 = tokenizer_from_file("gpt2");
  ASSERT_NE(gpt2, nullptr);
  StreamDecoder decoder(gpt2, false);
  const auto byte = [&](std::string_view name) { return gpt2->token_id(name).value(); };
  const TokenId f0 = byte("\xC3\xB0");  // U+00F0 stands for the byte F0
  const TokenId b9f = byte("\xC4\x81"), a = byte("a");
  ASSERT_EQ(gpt2->piece(f0), "\xF0");
  EXPECT_EQ(decoder.push(f0), "");
  EXPECT_EQ(decoder.push(a),
            "\xEF\xBF\xBD"
            "a");  // F0 cannot go on with 'a'
  EXPECT_EQ(decoder.push(f0), "");
  EXPECT_EQ(decoder.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.flush(), "");
  EXPECT_EQ(decoder.push(a), "a");
  EXPECT_FALSE(decoder.push(-1).has_value());
  EXPECT_NE(gpt2->piece(b9f), std::nullopt);
}

TEST(StreamDecoder, StripsTheLeadingSpaceOnceAndHoldsByteRuns) {
  const auto spm = tokenizer_from_file("spm");
  ASSERT_NE(spm, nullptr);
  EXPECT_EQ(spm->stream_mode(), StreamMode::kPieces);
  StreamDecoder decoder(spm, true);
  const auto id = [&](std::string_view name) { return spm->token_id(name).value(); };
  EXPECT_EQ(decoder.push(id("<s>")), "");
  EXPECT_EQ(decoder.push(id("\xE2\x96\x81the")), "the");
  EXPECT_EQ(decoder.push(id("\xE2\x96\x81the")), " the");
  for (const char* name : {"<0xF0>", "<0x9F>", "<0x98>"}) {
    EXPECT_EQ(decoder.push(id(name)), "");
  }
  EXPECT_EQ(decoder.push(id("<0x80>")), "");  // the run may go on
  EXPECT_EQ(decoder.push(id("\xE2\x96\x81the")), "\xF0\x9F\x98\x80 the");
  EXPECT_EQ(decoder.push(id("<0xE4>")), "");
  EXPECT_EQ(decoder.push(id("</s>")), "");
  EXPECT_EQ(decoder.push(id("<0xB8>")), "");
  EXPECT_EQ(decoder.flush(), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(decoder.push(id("\xE2\x96\x81the")), "the");  // a new text
}

// Decoders of other shapes go through windows of ids; the text must still be that of decode().
TEST(StreamDecoder, WindowsGiveTheTextOfDecode) {
  const std::string word_piece = R"({"version":"1.0","truncation":null,"padding":null,
    "added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},
    "post_processor":null,"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
    "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",
             "max_input_chars_per_word":100,
             "vocab":{"[UNK]":0,"play":1,"##ing":2,"it":3,".":4,"n't":5,"do":6,"\u00e9":7}}})";
  const std::vector<TokenId> ids = {1, 2, 3, 6, 5, 1, 4, 7, 0, 3, 4};
  for (const bool cleans_up : {false, true}) {
    const auto made =
        Tokenizer::from_json(word_piece, "w", {.clean_up_tokenization_spaces = cleans_up});
    ASSERT_TRUE(made.has_value()) << made.error().message;
    EXPECT_EQ((*made)->stream_mode(), StreamMode::kWindow);
    EXPECT_EQ((*made)->cleans_up(), cleans_up);
    StreamDecoder decoder(*made, false);
    std::string text;
    for (const TokenId id : ids) {
      text += decoder.push(id).value();
    }
    text += decoder.flush().value();
    EXPECT_EQ(text, (*made)->decode(ids).value());
    EXPECT_EQ(text, "playing it don't play. \xC3\xA9 [UNK] it.");
  }
}

TEST(TokenizerJson, EscapesWhatJsonMustEscape) {
  EXPECT_EQ(json_string("a\"b\\c\n\x01\xC3\xA9"), "\"a\\\"b\\\\c\\u000a\\u0001\xC3\xA9\"");
}

}  // namespace
}  // namespace logitlab
