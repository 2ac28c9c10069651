// tests/house/docs_test.cpp - the documentation cannot lie: recipes are applied, built and run,
// tables are compared with the program's lists, and what a page mentions must be there.
#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "tests/train/temporary_folder.h"
#include "train/files.h"  // read_file
#include "train/list.h"

namespace {

namespace fs = std::filesystem;

const fs::path kRoot = MURMUR_SOURCE_DIR;
const std::vector<std::string> kFolders = {"tensor", "autograd", "nn",    "optim",
                                           "dist",   "train",    "tests", "docs"};

// What pages may speak of although it is not in the tree: places where something will attach, and
// the header that CMake makes.
const std::set<std::string> kNotThere = {"tensor/cuda/", "dist/nccl.cpp"};

std::string read(const fs::path& path) { return murmur::read_file((kRoot / path).string()); }

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

bool starts_with(const std::string& text, const std::string& start) {
  return text.rfind(start, 0) == 0;
}

std::string trimmed(const std::string& text) {
  size_t begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
  return begin == text.npos ? "" : text.substr(begin, end - begin + 1);
}

// A fenced block: ```diff, or ```cpp train/trainer.cpp for a piece of that file.
struct Block {
  std::string language, file, text;
};

struct Page {
  std::string path;  // from the root
  std::string prose;
  std::vector<Block> blocks;
};

Page parse(const std::string& path, const std::string& text) {
  Page page{path, "", {}};
  bool inside = false;
  for (const std::string& line : lines_of(text)) {
    if (starts_with(trimmed(line), "```")) {
      inside = !inside;
      if (!inside) continue;
      std::string info = trimmed(line).substr(3);
      size_t space = std::min(info.find(' '), info.size());
      page.blocks.push_back({info.substr(0, space), trimmed(info.substr(space)), ""});
    } else {
      (inside ? page.blocks.back().text : page.prose) += line + "\n";
    }
  }
  return page;
}

// Every page of the project: at the root and in the rooms.
std::vector<Page> read_pages() {
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(kRoot)) {
    if (entry.path().extension() == ".md") paths.push_back(entry.path().filename());
  }
  for (const std::string& folder : kFolders) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      if (entry.path().extension() == ".md")
        paths.push_back(fs::relative(entry.path(), kRoot).generic_string());
    }
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Page> pages;
  for (const std::string& path : paths) pages.push_back(parse(path, read(path)));
  return pages;
}

std::vector<std::string> matches(const std::string& text, const std::string& pattern) {
  std::vector<std::string> found;
  std::regex regex(pattern);
  for (std::sregex_iterator it(text.begin(), text.end(), regex), end; it != end; ++it)
    found.push_back((*it)[1]);
  return found;
}

std::regex wildcard(const std::string& pattern) {
  std::string regex;
  for (char c : pattern) {
    if (c == '*') {
      regex += ".*";
    } else if (std::isalnum(static_cast<unsigned char>(c)) || c == ' ' || c == '/' || c == '_') {
      regex += c;
    } else {
      regex += std::string("\\") + c;
    }
  }
  return std::regex(regex);
}

// True when `path` names something in `folder`; the last part may hold stars.
bool exists_in(const fs::path& folder, const std::string& path) {
  fs::path full = folder / path;
  if (path.find('*') == path.npos) return fs::exists(full);
  if (!fs::is_directory(full.parent_path())) return false;
  std::regex name = wildcard(full.filename());
  for (const auto& entry : fs::directory_iterator(full.parent_path())) {
    if (std::regex_match(entry.path().filename().string(), name)) return true;
  }
  return false;
}

bool some_room_has(const std::string& name) {
  for (const std::string& folder : kFolders) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      if (entry.path().filename() == name) return true;
    }
  }
  return false;
}

// Files that the diffs of a page create: the page may speak of them.
std::set<std::string> created_by(const Page& page) {
  std::set<std::string> created;
  for (const Block& block : page.blocks) {
    if (block.language != "diff") continue;
    for (const std::string& path : matches(block.text, "--- /dev/null\n\\+\\+\\+ b/(\\S+)"))
      created.insert(path);
  }
  return created;
}

// What is wrong with the links and paths of a page.
std::vector<std::string> broken_mentions(const Page& page) {
  std::vector<std::string> broken;
  std::set<std::string> created = created_by(page);
  fs::path here = kRoot / fs::path(page.path).parent_path();
  for (const std::string& link : matches(page.prose, "\\]\\(([^)\\s]+)\\)")) {
    if (std::regex_search(link, std::regex("^(https?:|mailto:|#)"))) continue;
    if (!fs::exists(here / link.substr(0, link.find('#'))))
      broken.push_back(page.path + ": link to " + link + ", which is not there");
  }
  // `tensor/ops/gelu.h`, `tests/optim/`, `tensor/ops/*.h`, or a bare `gelu.h` of any room.
  static const std::regex path_like("[\\w.*-]+(/[\\w.*-]+)*/?");
  static const std::regex source_name("[\\w-]+\\.(h|cpp|def|cu|cuh|md|py)");
  for (const std::string& code : matches(page.prose, "`([^`\n]+)`")) {
    if (!std::regex_match(code, path_like) || created.count(code) || kNotThere.count(code))
      continue;
    std::string first = code.substr(0, code.find('/'));
    bool in_folder = code.find('/') != code.npos &&
                     std::find(kFolders.begin(), kFolders.end(), first) != kFolders.end();
    bool is_name = std::regex_match(code, source_name);
    if (in_folder && !exists_in(kRoot, code))
      broken.push_back(page.path + ": `" + code + "` is not there");
    if (is_name && !exists_in(here, code) && !exists_in(kRoot, code) && !some_room_has(code))
      broken.push_back(page.path + ": `" + code + "` is in no room");
  }
  return broken;
}

std::vector<std::string> test_names(const std::string& room) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kRoot / "tests" / room)) {
    if (entry.path().extension() != ".cpp") continue;
    std::string text = murmur::read_file(entry.path().string());
    for (const std::string& parts :
         matches(text, "TEST_CASE\\(\\s*((?:\"(?:[^\"\\\\]|\\\\.)*\"\\s*)+)")) {
      std::string name;
      for (const std::string& part : matches(parts, "\"((?:[^\"\\\\]|\\\\.)*)\"")) name += part;
      names.push_back(name);
    }
  }
  return names;
}

// Every `build/test_ROOM -tc="..."` on a page must select a test. A comma would make it two
// patterns.
std::vector<std::string> missing_tests(const Page& page) {
  std::vector<std::string> missing;
  std::string all = page.prose;
  for (const Block& block : page.blocks) all += block.text;
  static const std::regex call("build/test_(\\w+) -tc=\"([^\"]+)\"");
  for (std::sregex_iterator it(all.begin(), all.end(), call), end; it != end; ++it) {
    std::string room = (*it)[1], pattern = (*it)[2];
    bool found = false;
    if (pattern.find(',') == pattern.npos && fs::exists(kRoot / "tests" / room)) {
      std::regex regex = wildcard(pattern);
      for (const std::string& name : test_names(room))
        found = found || std::regex_match(name, regex);
    }
    if (!found)
      missing.push_back(page.path + ": no test in tests/" + room + " is '" + pattern + "'");
  }
  return missing;
}

// A ```cpp block that names a file must be cut from it: the same lines one after another, up to
// indentation; a line `...` stands for any number of lines.
std::vector<std::string> stale_pieces(const Page& page) {
  std::vector<std::string> stale;
  for (const Block& block : page.blocks) {
    if (block.language != "cpp" || block.file.empty()) continue;
    if (!fs::exists(kRoot / block.file)) {
      stale.push_back(page.path + ": a block names " + block.file + ", which is not there");
      continue;
    }
    std::vector<std::string> have, want;
    for (const std::string& line : lines_of(read(block.file)))
      if (!trimmed(line).empty()) have.push_back(trimmed(line));
    for (const std::string& line : lines_of(block.text))
      if (!trimmed(line).empty()) want.push_back(trimmed(line));
    auto at = have.begin();
    for (size_t i = 0; i < want.size();) {
      size_t end = i;
      while (end < want.size() && want[end] != "...") end++;
      at = std::search(at, have.end(), want.begin() + long(i), want.begin() + long(end));
      if (at == have.end()) {
        stale.push_back(page.path + ": " + block.file + " no longer holds the piece that begins '" +
                        want[i] + "'");
        break;
      }
      at += long(end - i);
      i = end + (end < want.size());
    }
  }
  return stale;
}

// An exercise: ```diff FILE with lines to take away and lines to put there, then the test that
// notices. Two such pairs in one block are two places.
struct Exercise {
  std::string file, room, pattern;
  std::vector<std::pair<std::string, std::string>> changes;  // old text, new text; whole lines
};

std::vector<Exercise> exercises_of(const std::string& text) {
  std::vector<Exercise> exercises;
  std::string file;
  std::vector<std::pair<std::string, std::string>> changes;
  static const std::regex call("build/test_(\\w+) -tc=\"([^\"]+)\"");
  bool inside = false, adding = false;
  for (const std::string& line : lines_of(text)) {
    std::smatch found;
    if (starts_with(line, "```diff ")) {
      inside = true;
      adding = true;
      file = trimmed(line.substr(8));
      changes.clear();
    } else if (inside && starts_with(line, "```")) {
      inside = false;
    } else if (inside) {
      bool plus = starts_with(line, "+");
      if (!plus && adding) changes.emplace_back();
      adding = plus;
      (plus ? changes.back().second : changes.back().first) += line.substr(1) + "\n";
    } else if (!changes.empty() && std::regex_search(line, found, call)) {
      exercises.push_back({file, found[1], found[2], changes});
      changes.clear();
    }
  }
  return exercises;
}

// The file's text with the exercise done; empty where its old lines are not there exactly once.
std::string done(const Exercise& exercise, const std::string& before) {
  std::string text = "\n" + before;
  for (const auto& [old, now] : exercise.changes) {
    size_t at = text.find("\n" + old);
    if (old.empty() || at == text.npos || text.find("\n" + old, at + 1) != text.npos) return "";
    text.replace(at + 1, old.size(), now);
  }
  return text.substr(1);
}

// The commands that a page tells to give: its lines that begin with murmur, and those on which they
// go on, after the variables that the page has set. Without what is optional, [..], a `..` that
// stands for more, what `launch` starts its command with, and what is said behind two spaces; of
// alternatives the first.
std::vector<std::string> commands_on(const std::string& page) {
  static const std::regex command("^ *(?:build/)?murmur +(\\w+) +(.*)$"), variable("^[A-Z]+=.*$"),
      left_out(" *\\[[^\\]]*\\]| *,? *\\.\\.(?=[\" ]|$)|launch .*-- "), others("\\|\\w+");
  std::vector<std::string> lines = lines_of(page), commands;
  std::string variables;
  for (size_t i = 0; i < lines.size(); i++) {
    std::smatch found;
    if (std::regex_match(lines[i], variable)) variables += lines[i] + "\n";
    if (!std::regex_match(lines[i], found, command)) continue;
    std::string words = found[1].str() + " " + found[2].str();
    auto goes_on = [&] {
      return words.ends_with('\\') || std::count(words.begin(), words.end(), '"') % 2 == 1;
    };
    while (goes_on() && i + 1 < lines.size()) {
      if (words.ends_with('\\')) words.pop_back();
      words = trimmed(words) + " " + trimmed(lines[++i]);
    }
    words = std::regex_replace(words.substr(0, words.find("  ")), left_out, "");
    bool quotes = words.find('"') != words.npos;
    commands.push_back(variables + "murmur " +
                       (quotes ? words : std::regex_replace(words, others, "")));
  }
  return commands;
}

void expect_none(const std::vector<std::string>& complaints) {
  for (const std::string& complaint : complaints) FAIL_CHECK(complaint);
  CHECK(complaints.empty());
}

bool only(const std::vector<std::string>& complaints, const std::string& part) {
  return complaints.size() == 1 && complaints[0].find(part) != std::string::npos;
}

// The page of lists with every table made anew; a list without a place gets one at the end.
std::string with_tables(std::string page) {
  for (const std::string& kind : murmur::list_kinds()) {
    std::string begin = "<!-- begin " + kind + " -->\n", end = "<!-- end " + kind + " -->\n";
    std::string table = murmur::to_markdown(murmur::list_table(kind));
    size_t from = page.find(begin), to = page.find(end);
    if (from == page.npos || to == page.npos || to < from) {
      page += "\n## " + kind + "\n\n" + begin + table + end;
    } else {
      page.replace(from + begin.size(), to - from - begin.size(), table);
    }
  }
  return page;
}

bool succeeds(const std::string& command, const TemporaryFolder& folder) {
  std::string log = folder / "log";
  return std::system(
             ("cd '" + folder.path() + "' && (" + command + ") > '" + log + "' 2>&1").c_str()) == 0;
}

// Runs a command in `folder`; on failure the end of its output is the message.
void run(const std::string& command, const TemporaryFolder& folder) {
  if (succeeds(command, folder)) return;
  std::string log = folder / "log";
  std::vector<std::string> lines = lines_of(murmur::read_file(log));
  std::string tail;
  for (size_t i = lines.size() - std::min<size_t>(lines.size(), 40); i < lines.size(); i++)
    tail += lines[i] + "\n";
  FAIL("recipe: '" << command << "' failed:\n" << tail);
}

// The sources, in a folder of their own.
void copy_sources(const TemporaryFolder& folder, const std::vector<std::string>& folders) {
  for (const std::string& name : folders) {
    fs::copy(kRoot / name, folder / name,
             fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  }
  for (const char* name : {"CMakeLists.txt", "README.md", "Makefile"}) {
    if (fs::exists(kRoot / name)) fs::copy(kRoot / name, folder / name);
  }
}

const char kConfigure[] =
    "cmake -S . -B build -G Ninja -DMURMUR_NATIVE=OFF -DCMAKE_BUILD_TYPE=Debug "
    "-DCMAKE_CXX_FLAGS_DEBUG=-O0";

// What the recipes promise, seen from outside: the names are there, and the formulas are right.
const char kRecipeTest[] =
    R"(// tests/optim/recipes_test.cpp - the ops and the optimizer of the recipes.
#include <doctest/doctest.h>

#include <cmath>

#include "autograd/elementwise.h"
#include "autograd/functions.h"
#include "optim/registry.h"
#include "tensor/elementwise.h"

using namespace murmur;

TEST_CASE("the new elementwise op is a function with a constant") {
  Unary four = find_unary("activation", "softplus:4");
  CHECK(four == Unary{unary::softplus.function, 4});
  for (DType dtype : {DType::f32, DType::f64}) {
    for (double beta : {1.0, 4.0}) {
      Var x = Var::leaf(Tensor::of({0, 1, -100, 100, -4}, {5}, dtype));
      Tape tape;
      Var y = beta == 1 ? softplus(x) : apply(four, x);
      tape.backward(sum(y));
      CHECK(to_vector(y.value())[0] == doctest::Approx(std::log(2.0) / beta));
      CHECK(to_vector(y.value())[1] == doctest::Approx(std::log1p(std::exp(beta)) / beta));
      CHECK(to_vector(y.value())[2] == doctest::Approx(0.0));
      CHECK(to_vector(y.value())[3] == doctest::Approx(100.0));
      double digits = to_vector(y.value())[4] / (std::log1p(std::exp(-4 * beta)) / beta);
      CHECK(digits == doctest::Approx(1).epsilon(1e-6));
      CHECK(to_vector(x.gradient())[0] == doctest::Approx(0.5));
    }
  }
}

TEST_CASE("the new op along rows makes them of length 1") {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    Tensor x({3, 1000}, dtype), squares({3}, DType::f64);
    ops::random_normal(1, 0, 0, 5, x);
    ops::sum_of_squares(l2_normalize(Var(x)).value(), squares);
    for (double s : to_vector(squares)) CHECK(s == doctest::Approx(1).epsilon(0.01));
    Tensor small = Tensor::of({3, 4, 0, 0}, {2, 2}, dtype);
    CHECK(to_vector(l2_normalize(Var(small), 0).value())[1] == doctest::Approx(0.8).epsilon(0.01));
    CHECK(to_vector(l2_normalize(Var(small)).value())[3] == 0);
    CHECK_THROWS_WITH(ops::l2_normalize(0, x, small), doctest::Contains("l2_normalize: "));
  }
}

TEST_CASE("the new optimizer is made by name and gives its direction") {
  auto optimizer = make_optimizer("rmsprop");
  set_option(all_options(*optimizer), "", "beta", "0.75");
  Parameters parameters;
  parameters.add("w", {1, 2}, Role::matrix, 1);
  parameters.allocate(1);
  const Bank& bank = parameters.banks()[0];
  State state;
  for (const StateShape& s : optimizer->state(bank)) state[s.name] = Tensor::zeros(s.shape);
  Tensor g = Tensor::of({3, -0.001}, {1, 1, 2}), d(g.shape());
  Tensor step = Tensor::of({1}, {1}, DType::f64);
  Question question{bank, g, bank.value, state, step, optimizer->learning_rate, 0};
  optimizer->direction(question, d);  // v = g^2 / 4
  CHECK(to_vector(d)[0] == doctest::Approx(2));
  CHECK(to_vector(d)[1] == doctest::Approx(-2).epsilon(1e-3));
  optimizer->direction(question, d);  // v = g^2 (1/4 + 3/16)
  CHECK(to_vector(d)[0] == doctest::Approx(1 / std::sqrt(0.4375)));
}
)";

}  // namespace

TEST_CASE("docs/lists.md holds the program's lists") {
  std::string text = read("docs/lists.md"), now = with_tables(text);
  const char* write = std::getenv("MURMUR_WRITE_DOCS");
  if (write && std::string(write) == "1") {
    murmur::write_file_durably((kRoot / "docs/lists.md").string(), now);
  } else {
    std::vector<std::string> have = lines_of(text), want = lines_of(now);
    size_t line = 0;
    while (line < have.size() && line < want.size() && have[line] == want[line]) line++;
    bool same = text == now;
    CHECK_MESSAGE(same, "docs/lists.md:" << line + 1 << ": is '"
                                         << (line < have.size() ? have[line] : "the end")
                                         << "', the program says '"
                                         << (line < want.size() ? want[line] : "the end")
                                         << "'; `make docs` writes the tables anew");
  }
  CHECK(with_tables(now) == now);
  std::string damaged = now;
  damaged.replace(damaged.find("| gelu |"), 8, "| gelo |");
  CHECK(with_tables(damaged) == now);
}

TEST_CASE("links, paths, tests and pieces of code on every page are there") {
  std::vector<Page> pages = read_pages();
  CHECK(pages.size() > 8);
  for (const Page& page : pages) {
    expect_none(broken_mentions(page));
    expect_none(missing_tests(page));
    expect_none(stale_pieces(page));
  }
}

// In a folder without data and runs each gets as far as that: all its flags and settings have then
// been understood. `bench` works without data, and takes minutes; recipes are built elsewhere.
TEST_CASE("every command on a page is one that the program understands") {
  TemporaryFolder folder;
  fs::create_symlink(MURMUR_BINARY, folder / "murmur");
  fs::create_directories(folder / "runs");
  put_bytes(folder / "runs/synthetic", "no folder");
  static const std::regex nothing_there(
      "murmur: .*(No such file|Not a directory|cannot read the data folder|is no run "
      "folder)");
  std::set<std::string> commands;
  for (const Page& page : read_pages()) {
    for (const std::string& command : commands_on(read(page.path)))
      if (!starts_with(page.path, "docs/add-") && !contains(command, "murmur bench"))
        commands.insert(command);
  }
  CHECK(commands.size() > 25);
  for (const std::string& command : commands) {
    CAPTURE(command);
    bool done = succeeds("PATH=.; " + command, folder);
    std::string log = murmur::read_file(folder / "log");
    CAPTURE(log);
    CHECK((done || std::regex_search(log, nothing_there)));
  }
  auto one = [](const std::string& text) { return commands_on(text).at(0); };
  CHECK(one("    build/murmur list    ops|optimizers [--json]   a table\n") == "murmur list ops");
  CHECK(one("A=b:c\nmurmur x --y \"$A, d=1|2, ..\" \\\n   --z 1     what it does\n") ==
        "A=b:c\nmurmur x --y \"$A, d=1|2\" --z 1");
  CHECK(one("murmur launch -n 4 -- train --out a\n") == "murmur train --out a");
}

TEST_CASE("every exercise of the tour changes lines that are there, once") {
  std::vector<Exercise> exercises = exercises_of(read("docs/tour.md"));
  CHECK(exercises.size() >= 15);
  for (const Exercise& exercise : exercises) {
    CAPTURE(exercise.file);
    CAPTURE(exercise.pattern);
    REQUIRE(fs::exists(kRoot / exercise.file));
    CHECK(done(exercise, read(exercise.file)) != "");
  }
  auto result = [](const std::string& diff, const std::string& text) {
    return done(exercises_of("```diff a.cpp\n" + diff + "```\n    build/test_nn -tc=\"x\"\n").at(0),
                text);
  };
  CHECK(result("-b\n+c\n+d\n", "a\nb\n") == "a\nc\nd\n");
  CHECK(result("-a\n+c\n-b\n+d\n", "a\nb\n") == "c\nd\n");
  CHECK(result("-b\n+c\n", "b\nb\n") == "");
  CHECK(result("-b\n+c\n", "abc\n") == "");
}

TEST_CASE("a page with something wrong on it is noticed") {
  auto page = [](const std::string& text) { return parse("docs/page.md", text); };
  CHECK(broken_mentions(page("[a](../tensor/README.md#x) [b](https://x.org/y) `tensor/ops/*.h`\n"
                             "`tensor/` `gelu.h` `CMakeLists.txt` `loss.png` `data/kjv` `a / b`\n"))
            .empty());
  CHECK(only(broken_mentions(page("[a](../tensor/READMY.md)\n")), "link to ../tensor/READMY.md"));
  CHECK(only(broken_mentions(page("see `tensor/ops/geloo.h`\n")), "`tensor/ops/geloo.h`"));
  CHECK(only(broken_mentions(page("see `tensor/opps/*.h`\n")), "`tensor/opps/*.h`"));
  CHECK(only(broken_mentions(page("see `geloo.h`\n")), "`geloo.h` is in no room"));
  CHECK(broken_mentions(page("```diff\n--- /dev/null\n+++ b/optim/new.cpp\n```\n`optim/new.cpp`\n"))
            .empty());
  CHECK(missing_tests(page("`build/test_house -tc=\"a page with*\"`\n")).empty());
  CHECK(only(missing_tests(page("`build/test_house -tc=\"a pidge with*\"`\n")), "a pidge"));
  CHECK(only(missing_tests(page("`build/test_house -tc=\"links, paths*\"`\n")), "links, paths"));
  CHECK(stale_pieces(page("```cpp tests/main.cpp\n...\n#include <doctest/doctest.h>\n```\n"))
            .empty());
  CHECK(only(stale_pieces(page("```cpp tests/main.cpp\n#include <catch2>\n```\n")), "no longer"));
  CHECK(only(stale_pieces(page("```cpp tests/mayn.cpp\nint x;\n```\n")), "tests/mayn.cpp"));
}

// A copy of the sources in which all recipes are followed: they are independent of each other.
void follow_recipes(const TemporaryFolder& folder) {
  copy_sources(folder, {"tensor", "autograd", "nn", "optim", "dist", "train", "tests"});
  // How many files each diff of a page changes, as it promises.
  const std::vector<std::pair<std::string, std::vector<size_t>>> recipes = {
      {"docs/add-an-op.md", {2, 6}},
      {"docs/add-a-model-flag.md", {7}},
      {"docs/add-an-optimizer.md", {2}},
      {"docs/add-a-strategy.md", {2}}};
  for (const auto& [recipe, files] : recipes) {
    std::vector<size_t> counts;
    for (const Block& block : parse(recipe, read(recipe)).blocks) {
      if (block.language != "diff") continue;
      put_bytes(folder / "recipe.diff", block.text);
      CAPTURE(recipe);
      run("patch -p1 --fuzz=0 --forward < recipe.diff", folder);
      counts.push_back(matches(block.text, "(?:^|\n)(\\+\\+\\+) b/").size());
    }
    CAPTURE(recipe);
    CHECK(counts == files);
  }
}

TEST_CASE("the recipes' diffs fit the sources as they stand") {
  TemporaryFolder folder;
  follow_recipes(folder);
}

TEST_CASE("the recipes build, and pass the tests that their lists bring along" *
          doctest::test_suite("long") * doctest::skip()) {
  TemporaryFolder folder;
  follow_recipes(folder);
  fs::create_directories(folder / "tests/optim");
  put_bytes(folder / "tests/optim/recipes_test.cpp", kRecipeTest);
  run(kConfigure, folder);
  run("cmake --build build --target test_tensor test_autograd test_nn test_optim test_dist",
      folder);
  for (const std::string& line : lines_of(murmur::read_file(folder / "log"))) {
    bool ours = false;
    for (const char* name : {"softplus", "l2_normalize", "mlp", "rmsprop", "average.cpp"})
      ours = ours || contains(line, name);
    CHECK_MESSAGE(!(ours && contains(line, "warning:")), line);
  }
  run("build/test_tensor -tc='every UNARY row*'", folder);
  run("build/test_autograd", folder);
  run("build/test_nn -tc='an MLP twice as wide*'", folder);
  run("build/test_optim -sf='*contract_test.cpp,*recipes_test.cpp'", folder);
  run("build/test_dist -tc='every strategy of the list*'", folder);
  // What is new, where a user looks for it.
  run("cmake --build build --target murmur", folder);
  run("build/murmur list optimizers | grep '^| rmsprop '", folder);
  run("build/murmur list ops | grep '^| softplus '", folder);
  run("build/murmur list ops | grep '^| l2_normalize '", folder);
  run("build/murmur list config | grep '^| mlp_ratio '", folder);
  run("build/murmur train --help | grep -- '--optimizer.beta '", folder);
  run("yes 'let there be light' | head -c 9000 > text.txt && "
      "build/murmur data prepare text.txt --out data",
      folder);
  const std::string tiny = " --n-layer 1 --n-head 1 --n-embd 8 --block-size 8 --batch-size 2";
  run("build/murmur bench optimizers --optimizers rmsprop" + tiny + " | grep update_ms", folder);
  run("build/murmur compare --optimizers 'rmsprop:beta=0.99,adamw' --seeds 2 --steps 3 "
      "--data data --out race" +
          tiny + " | grep '^rmsprop:beta=0.99 '",
      folder);
  const std::string train = "build/murmur train --steps 3 --data data" + tiny;
  run(train +
          " --activation softplus:4 --out soft && "
          "grep 'activation = \"softplus:4\"' soft/config.toml",
      folder);
  run(train + " --mlp-ratio 2 --out narrow && build/murmur eval narrow && " + train +
          " --init-from narrow --out again && grep 'mlp_ratio = 2' again/config.toml",
      folder);
  CHECK(!succeeds("build/murmur train --resume --out narrow --steps 4 --mlp-ratio 3", folder));
  CHECK(contains(murmur::read_file(folder / "log"), "mlp_ratio: "));
  run("build/murmur list strategies | grep '^| average '", folder);
  run(train + " --out three --nodes 2 --strategy average && grep '\"nodes\":2' three/log.jsonl",
      folder);
}

TEST_CASE("every exercise of the tour, carried out, turns its test red" *
          doctest::test_suite("exercises") * doctest::skip()) {
  TemporaryFolder folder;
  copy_sources(folder, kFolders);
  run(kConfigure, folder);
  run("cmake --build build", folder);
  for (const Exercise& exercise : exercises_of(read("docs/tour.md"))) {
    std::string before = read(exercise.file), file = folder / exercise.file,
                program = "test_" + exercise.room,
                test = "build/" + program + " -tc=\"" + exercise.pattern + "\"";
    CAPTURE(exercise.file);
    CAPTURE(test);
    run("cmake --build build --target " + program, folder);  // the last exercise is undone
    run(test, folder);
    put_bytes(file, done(exercise, before));
    run("cmake --build build --target " + program, folder);
    CHECK(!succeeds("timeout 300 " + test, folder));
    MESSAGE(exercise.file << ": " << murmur::read_file(folder / "log").substr(0, 1200));
    put_bytes(file, before);
  }
}
