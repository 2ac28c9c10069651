// train/prepare.h - text files to a data folder, once; and what data.json says of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "train/data.h"

namespace murmur {

// What data.json holds, and what `data prepare` and `data info` show.
struct DataSummary {
  struct File {
    std::string name;
    int64_t size = 0;      // of a source in bytes, of a shard in tokens
    std::string checksum;  // CRC-32C of the bytes, of the tokens
    // Of a source, in train and val joined; absent in folders of before it was recorded.
    std::optional<int64_t> first_token = {};
  };
  std::string dir;
  std::string tokenizer;
  int64_t vocab_size = 0;
  std::vector<File> sources;  // empty where the shards were not prepared by Murmur
  std::vector<File> train, val;
  std::optional<double> bytes_per_token;  // of the validation part
};
std::string text(const DataSummary& summary);  // a few lines for people

// Joins the files as they are, and cuts the joined text once, at a character boundary: the last
// `val_fraction` of it is validation. The two parts share no byte. Every file is a document and
// becomes tokens by itself, so that no token straddles two. The char tokenizer collects its
// symbols over the whole text, validation included, so that validation has no unknown symbol.
// The folder appears as a whole. Where there was one it changes in one act, when all is written:
// its old data is good until then, and what else lies in it stays.
DataSummary prepare_data(const std::vector<std::string>& files, const std::string& tokenizer_name,
                         const std::string& out_dir, double val_fraction = 0.05,
                         int64_t tokens_per_shard = 100'000'000);

// Opens the folder with every check and compares its shards with the checksums in data.json.
DataSummary describe_data(const std::string& dir);

// Of all tokens in their order: "18000 + 2000 tokens, crc32c 1a2b3c4d". Checksums of shards are
// those of data.json; where it knows none (GPT-2 shards), all tokens are read.
std::string data_digest(const Dataset& data);

// What one source gave to the training split: all of its tokens, or those before the cut.
struct Document {
  std::string name;
  TokenRange tokens;
};
// In the order of the text, none of them empty. InputError where the folder does not record them.
std::vector<Document> training_documents(const Dataset& data);

}  // namespace murmur
