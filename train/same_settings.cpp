// train/same_settings.cpp - texts to rank 0, its verdict back.
#include "train/same_settings.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "dist/collect.h"
#include "optim/option.h"
#include "tensor/check.h"
#include "train/identity.h"
#include "train/prepare.h"  // data_digest
#include "train/revision.h"

namespace murmur {
namespace {

constexpr char kEnd = '\0';  // of a name, and of a value
// Paths and pace of each host's own; of the data counts what it holds.
const std::set<std::string> kPerRank = {"data", "out", "threads", "log_every"};
constexpr size_t kNamed = 4;  // ranks of one value, and settings

// "1, 2, 5", and no more than a few.
template <class List>
std::string some_of(const List& all) {
  std::string text;
  size_t count = 0;
  for (const auto& one : all) {
    if (count++ == kNamed) return text + ", ..";
    text += fmt::format("{}{}", text.empty() ? "" : ", ", one);
  }
  return text;
}

// "seed: 1337 on rank 0, 1338 on ranks 1, 2; .."; "" where all are told the same.
std::string difference(const std::vector<std::vector<Assignment>>& ranks) {
  std::vector<std::string> names;  // in the order of first mention
  std::map<std::string, std::map<std::string, std::vector<int>>> who;  // by name and value
  for (size_t rank = 0; rank < ranks.size(); rank++) {
    for (const Assignment& a : ranks[rank]) {
      if (!who.count(a.name)) names.push_back(a.name);
      who[a.name][a.value].push_back(int(rank));
    }
  }
  std::erase_if(names, [&](const std::string& name) {
    const auto& values = who[name];
    return values.size() == 1 && values.begin()->second.size() == ranks.size();
  });
  if (names.empty()) return "";
  std::string values = names[0] + ": ";
  for (const auto& [value, on] : who[names[0]]) {
    values += fmt::format("{}'{}' on rank{} {}", values.ends_with(": ") ? "" : ", ", value,
                          on.size() > 1 ? "s" : "", some_of(on));
  }
  names.erase(names.begin());
  return fmt::format("{}; all ranks of a run must be told the same{}", values,
                     names.empty() ? "" : fmt::format(" (they differ also in {})", some_of(names)));
}

}  // namespace

std::vector<Assignment> all_settings(const Config& config) {
  std::vector<Assignment> all;
  for_each_setting(config, [&](const std::string& name, const Option& option) {
    all.push_back({name, option_text(option)});
  });
  return all;
}

std::vector<Assignment> shared_settings(const Config& config, const Dataset& data, bool resume,
                                        std::optional<int64_t> from) {
  std::vector<Assignment> all;
  for_each_setting(config, [&](const std::string& name, const Option& option) {
    if (!kPerRank.contains(name)) all.push_back({name, option_text(option)});
  });
  all.push_back({"data", data_digest(data)});
  all.push_back({"tokenizer", tokenizer_digest(data.tokenizer_path())});
  all.push_back({"resume", resume ? "true" : "false"});
  all.push_back({"resume_from", from ? std::to_string(*from) : ""});
  all.push_back({"revision", revision()});
  return all;
}

void require_same_settings(Communicator& c, const std::vector<Assignment>& own) {
  if (c.size() == 1) return;
  std::vector<std::vector<Assignment>> ranks;
  for (const std::string& text : gather_texts(c, "settings", packed(own)))
    ranks.push_back(unpacked(text));
  std::string verdict = text_from_rank_zero(c, "settings", difference(ranks));
  if (!verdict.empty()) throw InputError(verdict);
}

std::string packed(const std::vector<Assignment>& settings) {
  std::string text;
  for (const Assignment& a : settings) text += a.name + kEnd + a.value + kEnd;
  return text;
}

std::vector<Assignment> unpacked(const std::string& text) {
  std::vector<std::string> words;
  for (size_t begin = 0, end; (end = text.find(kEnd, begin)) != text.npos; begin = end + 1)
    words.push_back(text.substr(begin, end - begin));
  std::vector<Assignment> settings;
  for (size_t i = 0; i + 1 < words.size(); i += 2) settings.push_back({words[i], words[i + 1]});
  return settings;
}

}  // namespace murmur
