// train/prepare.cpp - text files to a data folder, and what data.json says of it.
#include "train/prepare.h"

#include <fmt/format.h>
#include <unistd.h>  // sysconf

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "train/checksum.h"  // crc32c
#include "train/files.h"     // read_file, write_file_durably
#include "train/json.h"
#include "train/tokenizer.h"

namespace murmur {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using File = DataSummary::File;

File file_of(std::string name, const std::string& bytes) {
  return {std::move(name), int64_t(bytes.size()),
          checksum_text(crc32c(bytes.data(), bytes.size()))};
}
File file_of(std::string name, std::span<const uint16_t> tokens) {
  return {std::move(name), int64_t(tokens.size()),
          checksum_text(crc32c(tokens.data(), tokens.size_bytes()))};
}
File file_of(const TokenFile& shard) {
  uint32_t crc = 0;
  shard.for_each_piece(0, shard.size(),
                       [&](auto piece) { crc = crc32c(piece.data(), piece.size_bytes(), crc); });
  return {fs::path(shard.path()).filename().string(), shard.size(), checksum_text(crc)};
}

// --- data.json --------------------------------------------------------------------------------

Json json_of(const std::vector<File>& files, const char* unit) {
  Json rows = Json::array();
  for (const File& f : files) {
    Json row = {{"file", f.name}, {unit, f.size}, {"crc32c", f.checksum}};
    if (f.first_token) row["first_token"] = *f.first_token;
    rows.push_back(row);
  }
  return rows;
}

// So small that sums of them are numbers too.
int64_t count_from(const Json& value) {
  const std::optional<int64_t> count = whole_number(value, 0, 10'000'000'000'000);
  check(count.has_value(), "not a number of bytes or tokens");
  return *count;
}

std::vector<File> files_of(const Json& rows, const char* unit) {
  std::vector<File> files;
  for (const Json& row : rows) {
    files.push_back({row.at("file"), count_from(row.at(unit)), row.at("crc32c")});
    if (row.contains("first_token")) files.back().first_token = count_from(row["first_token"]);
  }
  return files;
}

void save_summary(const DataSummary& summary, const std::string& dir) {
  const Json json = {{"tokenizer", summary.tokenizer},
                     {"vocab_size", summary.vocab_size},
                     {"sources", json_of(summary.sources, "bytes")},
                     {"train", json_of(summary.train, "tokens")},
                     {"val", json_of(summary.val, "tokens")}};
  // A file name may hold bytes that are not UTF-8: they are replaced.
  write_file_durably(data_file(dir),
                     json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::optional<DataSummary> load_summary(const std::string& dir) {
  if (!path_exists(data_file(dir))) return std::nullopt;
  constexpr uint64_t kMostBytes = 256 << 20;  // a million documents
  const std::string text = read_file(data_file(dir), kMostBytes);
  try {
    const Json json = Json::parse(text);
    DataSummary summary;
    summary.dir = dir;
    summary.tokenizer = json.at("tokenizer");
    summary.vocab_size = count_from(json.at("vocab_size"));
    summary.sources = files_of(json.at("sources"), "bytes");
    summary.train = files_of(json.at("train"), "tokens");
    summary.val = files_of(json.at("val"), "tokens");
    return summary;
  } catch (const std::exception&) {
    throw InputError(data_file(dir) + ": damaged; remove the folder and prepare the data again");
  }
}

int64_t tokens_of(const std::vector<File>& shards) {
  int64_t tokens = 0;
  for (const File& shard : shards) tokens += shard.size;
  return tokens;
}

// Empty where the folder does not record them.
std::vector<Document> documents_of(const DataSummary& summary) {
  std::vector<Document> documents;
  int64_t end = tokens_of(summary.train);
  for (size_t i = summary.sources.size(); i-- > 0;) {  // a document ends where the next one begins
    const File& source = summary.sources[i];
    if (!source.first_token) return {};
    if (*source.first_token < end) documents.push_back({source.name, {*source.first_token, end}});
    end = std::min(end, *source.first_token);
  }
  std::reverse(documents.begin(), documents.end());
  return documents;
}

// --- preparing --------------------------------------------------------------------------------

// The byte at which validation begins: never inside a UTF-8 character.
size_t split_point(std::string_view text, double val_fraction) {
  size_t at = size_t(double(text.size()) * (1 - val_fraction));
  auto inside = [&](size_t i) { return i < text.size() && (uint8_t(text[i]) & 0xC0) == 0x80; };
  while (at > 0 && inside(at)) at--;
  return at;
}

struct Shard {
  std::string name;
  std::span<const uint16_t> tokens;
};

// Pieces of at most `tokens_per_shard`, named train_000000.bin, train_000001.bin, ...
std::vector<Shard> shards_of(Split split, std::span<const uint16_t> tokens,
                             size_t tokens_per_shard) {
  std::vector<Shard> shards;
  for (size_t begin = 0; begin < tokens.size(); begin += tokens_per_shard) {
    const size_t count = std::min(tokens_per_shard, tokens.size() - begin);
    shards.push_back({fmt::format("{}_{:06d}.bin", name_of(split), shards.size()),
                      tokens.subspan(begin, count)});
  }
  return shards;
}

// Reads the files one after another into one text, and notes what they were.
std::string join(const std::vector<std::string>& files, bool must_be_utf8,
                 std::vector<File>& sources) {
  // Text and tokens are in memory together, three bytes for each of the text.
  const uint64_t memory = uint64_t(sysconf(_SC_PHYS_PAGES)) * uint64_t(sysconf(_SC_PAGESIZE));
  std::string all;
  for (const std::string& file : files) {
    const std::string bytes = read_file(file, (memory / 3) - std::min(all.size(), memory / 3));
    if (must_be_utf8) check_utf8(bytes, file);
    sources.push_back(file_of(fs::path(file).filename().string(), bytes));
    all += bytes;
  }
  if (all.empty()) throw InputError("data prepare: the text is empty; name at least one with text");
  return all;
}

// What lies in `dir` beside a preparation: all but tokenizer.json, data.json, the shards that are
// listed there, and what a preparation that was killed has half written.
std::vector<std::string> rest_of(const std::string& dir) {
  std::set<std::string> own = {"tokenizer.json", "data.json"};
  if (const auto summary = load_summary(dir)) {
    for (const auto* files : {&summary->train, &summary->val}) {
      for (const File& file : *files) own.insert(file.name);
    }
  }
  std::vector<std::string> rest;
  std::error_code error;
  fs::directory_iterator entries(dir, error);
  if (error) fail_with(dir, "read the folder", error.value());
  for (const fs::directory_entry& entry : entries) {
    const std::string name = entry.path().filename().string();
    const bool is_part = name.ends_with(".part") && own.contains(name.substr(0, name.size() - 5));
    if (!own.contains(name) && !is_part) rest.push_back(name);
  }
  return rest;
}

// Other shards would be read together with the new ones.
void refuse_other_shards(const std::string& dir) {
  for (const std::string& name : rest_of(dir)) {
    if (!is_shard(name, Split::train) && !is_shard(name, Split::val)) continue;
    throw InputError(fmt::format(
        "{}/{}: another shard, which would be read together with the new ones; choose an empty "
        "folder",
        dir, name));
  }
}

// The folder of a run is in use, or will be; the one in which we stand has to stay.
void refuse_run(const std::string& dir) {
  for (const char* name : {"config.toml", "checkpoint", ".lock"}) {
    if (path_exists(dir + "/" + name))
      throw InputError(fmt::format("out: '{}' holds a run; choose another folder", dir));
  }
  for (fs::path here = fs::current_path(); !here.empty(); here = here.parent_path()) {
    if (here == dir) {
      throw InputError(fmt::format(
          "out: '{}' is, or holds, the folder in which this runs; choose one inside it", dir));
    }
    if (here == here.parent_path()) break;
  }
}

// A folder beside `dir` in which new data grows until it is whole and takes the place of `dir`, in
// one act. Before that moment nothing of `dir` is touched, after it runs that read the old shards
// go on reading them.
class NewData {
 public:
  explicit NewData(const std::string& dir) : dir_(without_links(dir)), part_(dir_ + ".part") {
    if (path_exists(dir_)) {
      refuse_run(dir_);
      refuse_other_shards(dir_);
    }
    if (path_exists(part_)) {
      if (const auto rest = rest_of(part_); !rest.empty()) {
        throw InputError(fmt::format(
            "{}: left by a preparation that was killed, and holds '{}' of yours; move that to {}, "
            "then remove the folder",
            part_, rest[0], dir_));
      }
      remove_tree(part_);
    }
    make_directories(part_);
  }
  ~NewData() {
    std::error_code ignored;  // a full disk should not stay full
    if (!done_) fs::remove_all(part_, ignored);
  }
  NewData(const NewData&) = delete;
  NewData& operator=(const NewData&) = delete;

  const std::string& path() const { return part_; }

  void take_place() {
    sync_directory(part_);
    replace_directory(part_, dir_);
    done_ = true;
    if (path_exists(part_)) {  // what was there before: what is the user's moves on
      for (const std::string& name : rest_of(part_))
        rename_path(part_ + "/" + name, dir_ + "/" + name);
      sync_directory(dir_);
      remove_tree(part_);
    }
    sync_directory(fs::path(dir_).parent_path().string());
  }

 private:
  static std::string without_links(const std::string& dir) {
    if (path_exists(dir)) return fs::canonical(dir).string();
    const std::string full = fs::absolute(dir).lexically_normal().string();
    return full.ends_with('/') ? full.substr(0, full.size() - 1) : full;
  }

  std::string dir_, part_;
  bool done_ = false;
};

}  // namespace

DataSummary prepare_data(const std::vector<std::string>& files, const std::string& tokenizer_name,
                         const std::string& out_dir, double val_fraction,
                         int64_t tokens_per_shard) {
  const TokenizerInfo& info = tokenizer_info(tokenizer_name);
  if (!(val_fraction > 0 && val_fraction < 1)) {
    throw InputError(
        fmt::format("data prepare: validation fraction {} is not between 0 and 1; 0.05 is usual",
                    val_fraction));
  }
  check(tokens_per_shard > 0, "data prepare: a shard needs at least one token");

  DataSummary summary;
  summary.dir = out_dir;
  summary.tokenizer = tokenizer_name;
  const std::string all = join(files, info.needs_utf8, summary.sources);
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(tokenizer_name, all);
  summary.vocab_size = tokenizer->vocab_size();
  std::vector<uint16_t> train, val;
  auto encode = [&](std::string_view part, std::vector<uint16_t>& to) {
    const std::vector<uint16_t> tokens = tokenizer->encode(part);
    to.insert(to.end(), tokens.begin(), tokens.end());
  };
  std::string_view rest = all;
  size_t to_train = split_point(all, val_fraction);  // bytes
  for (File& source : summary.sources) {
    source.first_token = int64_t(train.size() + val.size());
    const std::string_view document = rest.substr(0, size_t(source.size));
    const size_t cut = std::min(to_train, document.size());
    encode(document.substr(0, cut), train);
    encode(document.substr(cut), val);
    rest.remove_prefix(document.size());
    to_train -= cut;
  }
  if (train.size() < 2 || val.size() < 2) {
    throw InputError(fmt::format(
        "data prepare: the text is too short: {} tokens to train on and {} to validate with, each "
        "needs 2; give it more text or another validation fraction",
        train.size(), val.size()));
  }

  const auto train_shards = shards_of(Split::train, train, size_t(tokens_per_shard));
  const auto val_shards = shards_of(Split::val, val, size_t(tokens_per_shard));
  for (const Shard& s : train_shards) summary.train.push_back(file_of(s.name, s.tokens));
  for (const Shard& s : val_shards) summary.val.push_back(file_of(s.name, s.tokens));

  NewData data(out_dir);
  save_summary(summary, data.path());
  for (const auto* shards : {&train_shards, &val_shards}) {
    for (const Shard& s : *shards) write_token_file(data.path() + "/" + s.name, s.tokens);
  }
  save_tokenizer(*tokenizer, tokenizer_file(data.path()));
  data.take_place();
  summary.bytes_per_token = Dataset(out_dir).bytes_per_token();
  return summary;
}

DataSummary describe_data(const std::string& dir) {
  const Dataset data(dir);
  DataSummary summary;
  summary.dir = dir;
  summary.tokenizer =
      data.tokenizer_path().empty() ? "" : load_tokenizer(data.tokenizer_path())->name();
  summary.vocab_size = data.vocab_size();
  summary.bytes_per_token = data.bytes_per_token();
  for (Split split : {Split::train, Split::val}) {
    std::vector<File>& files = split == Split::train ? summary.train : summary.val;
    for (const TokenFile& shard : data.stream(split).shards()) files.push_back(file_of(shard));
  }
  const auto listed = load_summary(dir);
  if (!listed) return summary;
  summary.sources = listed->sources;
  auto compare = [&](const std::vector<File>& expected, const std::vector<File>& found) {
    for (const File& file : expected) {
      const auto at = std::find_if(found.begin(), found.end(),
                                   [&](const File& f) { return f.name == file.name; });
      if (at != found.end() && at->checksum == file.checksum) continue;
      throw InputError(fmt::format("{}/{}: {}; prepare the data again", dir, file.name,
                                   at == found.end() ? "listed in data.json but missing"
                                                     : "its tokens are not those data.json lists"));
    }
  };
  compare(listed->train, summary.train);
  compare(listed->val, summary.val);
  return summary;
}

std::string data_digest(const Dataset& data) {
  const std::optional<DataSummary> summary = load_summary(data.dir());
  std::vector<File> listed;
  if (summary) listed = summary->train;
  if (summary) listed.insert(listed.end(), summary->val.begin(), summary->val.end());
  auto checksum_of = [&](const TokenFile& shard) {
    const std::string name = fs::path(shard.path()).filename().string();
    for (const File& file : listed)
      if (file.name == name && file.size == shard.size()) return file.checksum;
    return file_of(shard).checksum;
  };
  std::string shards;
  for (Split split : {Split::train, Split::val}) {
    for (const TokenFile& shard : data.stream(split).shards())
      shards += fmt::format("{} {} {}\n", name_of(split), shard.size(), checksum_of(shard));
  }
  return fmt::format("{} + {} tokens, crc32c {}", data.tokens(Split::train),
                     data.tokens(Split::val), checksum_text(crc32c(shards.data(), shards.size())));
}

static std::string lines_on_documents(const DataSummary& summary) {
  if (summary.sources.empty()) return "";
  constexpr size_t kShownDocuments = 3;
  std::vector<Document> documents = documents_of(summary);
  if (documents.empty())
    return "  documents are not recorded: prepare again for a --partition of them\n";
  std::stable_sort(documents.begin(), documents.end(), [](const Document& a, const Document& b) {
    return a.tokens.size() > b.tokens.size();
  });
  std::string largest;
  for (size_t i = 0; i < std::min(kShownDocuments, documents.size()); i++) {
    largest += fmt::format("{} {} of {} tokens", i ? "," : "", documents[i].name,
                           documents[i].tokens.size());
  }
  return fmt::format("  {} document{} in train, the largest:{}\n", documents.size(),
                     documents.size() == 1 ? "" : "s", largest);
}

std::string text(const DataSummary& summary) {
  constexpr size_t kShownSources = 8;
  std::string lines = fmt::format(
      "{}: {} tokenizer, {} ids\n", summary.dir,
      summary.tokenizer.empty() ? "GPT-2 shards without" : summary.tokenizer, summary.vocab_size);
  auto part = [&](const char* name, const std::vector<File>& files) {
    lines += fmt::format("  {:<6} {} tokens in {} shard{}", name, tokens_of(files), files.size(),
                         files.size() == 1 ? "" : "s");
  };
  part("train", summary.train);
  lines += "\n";
  part("val", summary.val);
  if (summary.bytes_per_token)
    lines += fmt::format(", {:.3f} bytes per token", *summary.bytes_per_token);
  lines += "\n";
  for (size_t i = 0; i < std::min(kShownSources, summary.sources.size()); i++) {
    const File& source = summary.sources[i];
    lines += fmt::format("  {:<6} {}, {} bytes, crc32c {}\n", i == 0 ? "from" : "", source.name,
                         source.size, source.checksum);
  }
  if (summary.sources.size() > kShownSources) {
    lines += fmt::format("         and {} more\n", summary.sources.size() - kShownSources);
  }
  return lines + lines_on_documents(summary);
}

std::vector<Document> training_documents(const Dataset& data) {
  const auto summary = load_summary(data.dir());
  std::vector<Document> documents;
  if (summary) documents = documents_of(*summary);
  if (documents.empty()) {
    throw InputError(fmt::format(
        "{}: it is not recorded where its documents begin; prepare the data again, with a file for "
        "each document",
        data.dir()));
  }
  if (documents.front().tokens.begin != 0 ||
      documents.back().tokens.end != data.tokens(Split::train)) {
    throw InputError(data_file(data.dir()) +
                     ": its documents are not those of the shards; prepare the data again");
  }
  return documents;
}

}  // namespace murmur
