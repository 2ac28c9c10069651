// train/toml.cpp - configuration files, read and written with toml++.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>

#include "tensor/check.h"
#include "train/config.h"
#include "train/files.h"  // read_file

namespace murmur {
namespace {

namespace fs = std::filesystem;

bool is_path(const std::string& name) {
  return name == "data" || name == "out" || name == "init_from" || name == "edges";
}
bool is_table(const std::string& name) {
  return name == "optimizer" || name == "auxiliary" || name == "strategy";
}

// Folders are resolved, so that `..` leads to the same place for everybody.
fs::path resolved(const fs::path& folder) {
  return fs::weakly_canonical(fs::absolute(folder / "."));
}

// From one folder to another: a relative path stays relative, so that a run can be moved together
// with its data, and an absolute one absolute.
std::string moved_path(const std::string& path, const fs::path& from, const fs::path& to) {
  if (path.empty() || fs::path(path).is_absolute()) return path;
  fs::path whole = (resolved(from) / path).lexically_normal();
  if (!whole.has_filename()) whole = whole.parent_path();  // of a slash at the end
  return whole.lexically_relative(resolved(to)).string();
}

std::string toml_text(const Option& option) {
  auto text = std::get_if<std::string*>(&option.value);
  if (!text) return option_text(option);  // a shorter number than the library's
  std::ostringstream out;
  out << toml::toml_formatter(toml::value(**text), toml::format_flags::allow_unicode_strings);
  return out.str();
}

// The text that a flag would have; none of a list, a table or a date.
std::optional<std::string> flag_text(const toml::node& node) {
  if (auto text = node.value_exact<std::string>()) return text;
  if (auto count = node.value_exact<int64_t>()) return fmt::format("{}", *count);
  if (auto number = node.value_exact<double>()) return fmt::format("{}", *number);
  if (auto flag = node.value_exact<bool>()) return fmt::format("{}", *flag);
  return {};
}

struct Reader {
  std::string path;
  std::vector<Assignment> assignments = {};

  std::string place(const toml::source_region& at) const {
    return fmt::format("{}:{}:{}", path, at.begin.line, at.begin.column);
  }

  void read(const toml::table& table, const std::string& owner) {
    for (const auto& [key, node] : table) {
      std::string name(key.str());
      const bool names_owner = is_table(owner) && name == "name";
      if (!owner.empty()) name = names_owner ? owner : owner + "." + name;
      if (name == "lr") name = "optimizer.lr";
      const toml::table* inner = node.as_table();
      if (inner && owner.empty()) {
        read(*inner, name);
        continue;
      }
      std::optional<std::string> text = flag_text(node);
      if (!text)
        throw InputError(fmt::format("{}: {}: needs one value", place(key.source()), name));
      if (is_path(name)) text = moved_path(*text, fs::path(path).parent_path(), ".");
      assignments.push_back({name, *text, place(key.source())});
    }
  }
};

// The library builds and frees tables inside tables by recursion, which a key of many parts would
// make deeper than the stack.
void check_depth(const std::string& text, const std::string& path) {
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); number++)
    if (std::count(line.begin(), line.end(), '.') > 100)
      throw InputError(fmt::format("{}:{}: more than 100 dots: no key has that many parts", path,
                                   number));
}

}  // namespace

std::vector<Assignment> read_toml(const std::string& path) {
  const std::string text = read_file(path, 1 << 20);
  check_depth(text, path);
  Reader reader{path};
  try {
    reader.read(toml::parse(text), "");
  } catch (const toml::parse_error& error) {
    std::string what(error.description());
    if (what.find("existing string") != what.npos)  // as Murmur once wrote it
      what += "; the name of an optimizer belongs into its table: [optimizer], name = \"muon\"";
    throw InputError(fmt::format("{}: {}", reader.place(error.source()), what));
  }
  return reader.assignments;
}

std::string to_toml(const Config& config, const std::string& folder,
                    const std::function<bool(const std::string& name)>& wanted) {
  std::map<std::string, std::string> tables;  // what stands in each
  for_each_setting(config, [&](const std::string& name, const Option& option) {
    if (wanted && !wanted(name)) return;
    const size_t dot = name.find('.');
    std::string table = dot == name.npos ? "" : name.substr(0, dot), key = option.name;
    if (is_table(name)) table = name, key = "name";
    Option stored = option;
    std::string path = option_text(option);
    if (is_path(name)) {
      path = path == folder ? "." : moved_path(path, ".", folder);
      stored.value = &path;
    }
    tables[table] += fmt::format("{} = {}\n", key, toml_text(stored));
  });
  std::string text = tables[""];
  for (const char* table : {"optimizer", "auxiliary", "strategy"})
    if (tables.contains(table)) text += fmt::format("\n[{}]\n{}", table, tables[table]);
  return text;
}

}  // namespace murmur
