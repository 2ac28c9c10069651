// tests/house/sources_test.cpp - faults that compilers let pass: one name for two things in one
// program, and a standard header that was there only because another one brought it along.
#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "train/files.h"  // read_file

namespace {

namespace fs = std::filesystem;

// A file as rules want it.
struct Source {
  std::string code;                            // without comments, literals, preprocessor lines
  std::vector<std::string> project, standard;  // what it includes
  Source(const char* text) : Source(std::string(text)) {}
  Source(const std::string& text);
};

using Tree = std::map<std::string, Source>;  // by path from the root
using Complaints = std::vector<std::string>;

// Everything that is compiled. What stands in the place of CUDA has CUDA's names and is left out.
const Tree& tree_as_it_stands() {
  static const Tree tree = [] {
    Tree all;
    const fs::path root = MURMUR_SOURCE_DIR;
    const std::set<std::string> extensions = {".h", ".cuh", ".cpp", ".cu"};
    for (const char* room : {"tensor", "autograd", "nn", "optim", "dist", "train", "tests"}) {
      for (const auto& entry : fs::recursive_directory_iterator(root / room)) {
        std::string path = fs::relative(entry.path(), root).generic_string();
        if (extensions.count(entry.path().extension()) && path.rfind("tests/cuda_on_cpu/", 0) != 0)
          all.emplace(path, murmur::read_file(entry.path().string()));
      }
    }
    return all;
  }();
  return tree;
}

Source::Source(const std::string& text) {
  static const std::regex other(
      "R\"(\\w*)\\([^]*?\\)\\1\"|\"(\\\\.|[^\"\\\\\n])*\"|'(\\\\.|[^'\\\\\n])'|//[^\n]*|"
      "/\\*[^]*?\\*/|\n[ \t]*#(\\\\\n|[^\n])*");
  static const std::regex include("\n[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"\n]+)[>\"]");
  const std::string all = "\n" + text;
  code = std::regex_replace(all, other, " ");
  for (std::sregex_iterator it(all.begin(), all.end(), include), end; it != end; ++it)
    ((*it)[1] == "<" ? standard : project).push_back((*it)[2]);
}

// The types, templates and inline functions that a file defines for all others to see: in no
// unnamed namespace. A function is named with its parameters.
std::set<std::string> definitions_in(const std::string& code) {
  static const std::regex a_namespace("(^|\\s)namespace\\s*([\\w:]*)$"),
      a_type(
          "(^|[\\s>])(struct|class|union|enum|enum class)\\s+(__attribute__\\s*\\(\\(.*\\)\\)\\s*)?"
          "(\\w+)\\s*(final)?\\s*(:[^:].*)?$"),
      a_function("(^|\\s)(template|inline|constexpr)\\s.*?(\\w+\\s*\\([^()]*\\))( const)?$");
  std::set<std::string> found;
  std::vector<std::string> open;  // namespaces; "" for all that is not one, or has no name
  std::string head;
  for (char c : code) {
    if (c == '{') {
      std::smatch m;
      if (!head.empty() && head.back() == ' ') head.pop_back();
      bool outside = std::find(open.begin(), open.end(), "") == open.end();
      std::string inside;
      if (outside && std::regex_search(head, m, a_namespace)) {
        inside = m[2];
      } else if (outside) {
        std::string scope;
        for (const std::string& name : open) scope += name + "::";
        if (std::regex_search(head, m, a_type)) found.insert(scope + m[4].str());
        if (std::regex_search(head, m, a_function)) found.insert(scope + m[3].str());
      }
      open.push_back(inside);
    } else if (c == '}' && !open.empty()) {
      open.pop_back();
    }
    if (c == '{' || c == '}' || c == ';') {
      head.clear();
    } else if (!std::isspace(static_cast<unsigned char>(c))) {
      head += c;
    } else if (!head.empty() && head.back() != ' ') {
      head += ' ';
    }
  }
  return found;
}

Complaints one_definition(const Tree& tree) {
  std::map<std::string, std::string> first;
  Complaints complaints;
  for (const auto& [path, source] : tree) {
    for (const std::string& name : definitions_in(source.code)) {
      auto [at, is_new] = first.emplace(name, path);
      if (!is_new)
        complaints.push_back(path + ": defines " + name + ", as " + at->second +
                             " does; give one of them another name, or an unnamed namespace");
    }
  }
  return complaints;
}

// Which headers are enough for which names of std::.
struct Provided {
  std::string headers, names;
};
const std::vector<Provided> kStandard = {
    {"algorithm",
     "max min clamp sort stable_sort partial_sort nth_element fill fill_n copy copy_n copy_if find "
     "find_if find_if_not all_of any_of none_of count count_if equal min_element max_element "
     "minmax_element lower_bound upper_bound binary_search equal_range reverse rotate unique "
     "remove_if transform generate for_each search mismatch replace swap_ranges set_difference "
     "set_intersection set_union includes shuffle is_sorted next_permutation partition "
     "partition_point adjacent_find minmax"},
    {"numeric", "accumulate iota inner_product gcd lcm reduce midpoint"},
    {"cmath",
     "sqrt exp exp2 log log2 log10 log1p expm1 pow fabs sin cos tan tanh sinh cosh acosh atan "
     "atan2 asin acos floor ceil round lround llround rint lrint trunc fmod hypot isnan isfinite "
     "isinf signbit copysign ldexp frexp ilogb cbrt lgamma tgamma erf fma nextafter fmax fmin nan"},
    {"cmath cstdlib", "abs"},
    {"cstring", "memcpy memcmp memset memmove strlen strcmp strncmp strerror strchr strstr strcpy"},
    {"cstdio",
     "FILE fopen fclose fread fwrite fputs fflush printf fprintf snprintf rename perror fgets "
     "fgetc fputc setvbuf fseek ftell rewind tmpfile"},
    {"cstdio algorithm", "remove"},
    {"cstdlib",
     "getenv malloc free aligned_alloc strtol strtoll strtod strtoul strtoull system exit abort "
     "atoi atoll atof"},
    {"cctype", "isalnum isalpha isdigit isspace tolower toupper isxdigit isprint"},
    {"cstddef cstdio cstring cstdlib vector string array memory string_view span map",
     "size_t ptrdiff_t"},
    {"vector", "vector"},
    {"string", "string to_string stoi stol stoll stod stoul stoull"},
    {"string_view string", "string_view"},
    {"map", "map multimap"},
    {"set", "set multiset"},
    {"unordered_map", "unordered_map"},
    {"unordered_set", "unordered_set"},
    {"memory", "unique_ptr shared_ptr weak_ptr make_unique make_shared enable_shared_from_this"},
    {"functional", "function plus multiplies reference_wrapper ref cref"},
    {"optional", "optional nullopt nullopt_t"},
    {"variant", "variant visit holds_alternative get_if monostate"},
    {"tuple map", "tuple make_tuple tie"},
    {"tuple", "apply"},
    {"utility map vector", "pair make_pair"},
    {"utility algorithm memory vector string functional map optional", "move swap"},
    {"utility", "exchange declval index_sequence make_index_sequence"},
    {"utility memory functional", "forward"},
    {"array", "array"},
    {"span", "span"},
    {"deque", "deque"},
    {"queue", "queue priority_queue"},
    {"limits", "numeric_limits"},
    {"chrono", "chrono milli micro"},
    {"thread", "thread jthread this_thread"},
    {"stop_token thread", "stop_token"},
    {"mutex", "mutex lock_guard unique_lock scoped_lock recursive_mutex once_flag call_once"},
    {"condition_variable", "condition_variable condition_variable_any cv_status"},
    {"atomic", "atomic atomic_flag memory_order"},
    {"stdexcept", "runtime_error logic_error invalid_argument out_of_range"},
    {"exception stdexcept", "exception"},
    {"exception",
     "exception_ptr current_exception rethrow_exception uncaught_exceptions terminate"},
    {"fstream", "ifstream ofstream fstream"},
    {"sstream", "stringstream ostringstream istringstream"},
    {"iostream", "cout cerr cin"},
    {"filesystem", "filesystem"},
    {"system_error charconv filesystem", "errc error_code"},
    {"system_error", "system_error generic_category"},
    {"regex", "regex smatch regex_match regex_search regex_replace sregex_iterator"},
    {"random", "mt19937 mt19937_64 uniform_int_distribution uniform_real_distribution"},
    {"type_traits",
     "is_same_v is_arithmetic_v integral_constant true_type false_type is_integral_v is_signed_v "
     "is_floating_point_v type_identity_t remove_pointer_t decay_t make_unsigned_t conditional_t"},
    {"bit", "bit_cast popcount countl_zero countr_zero bit_ceil bit_width rotr endian"},
    {"charconv", "from_chars to_chars"},
    {"csignal", "signal sig_atomic_t raise"},
    {"iterator", "back_inserter istreambuf_iterator inserter make_move_iterator"},
    {"numbers", "numbers"},
    {"new", "bad_alloc nothrow"},
};

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> found(1);
  for (char c : text) {
    if (c != ' ') found.back() += c;
    if (c == ' ') found.emplace_back();
  }
  return found;
}

// The standard headers that a file or a project header it reaches names.
std::set<std::string> headers_of(const Tree& tree, const std::string& path) {
  std::set<std::string> reached = {path}, standard;
  std::vector<std::string> open = {path};
  while (!open.empty()) {
    auto file = tree.find(open.back());
    open.pop_back();
    if (file == tree.end()) continue;
    const Source& source = file->second;
    standard.insert(source.standard.begin(), source.standard.end());
    std::vector<std::string> to = source.project;
    if (std::count(to.begin(), to.end(), "elementwise_ops.h")) {  // made by CMake
      for (const auto& [other, unused] : tree)
        if (other.rfind("tensor/ops/", 0) == 0) to.push_back(other);
    }
    for (const std::string& next : to)
      if (reached.insert(next).second) open.push_back(next);
  }
  return standard;
}

Complaints standard_headers(const Tree& tree, const std::string& path) {
  static const std::map<std::string, std::vector<std::string>> enough = [] {
    std::map<std::string, std::vector<std::string>> all;
    for (const Provided& p : kStandard)
      for (const std::string& name : words(p.names)) all[name] = words(p.headers);
    return all;
  }();
  Complaints complaints;
  std::set<std::string> have = headers_of(tree, path), seen;
  const std::string& code = tree.at(path).code;
  for (size_t at = code.find("std::"); at != code.npos; at = code.find("std::", at + 5)) {
    size_t end = at + 5;
    while (end < code.size() &&
           (std::isalnum(static_cast<unsigned char>(code[end])) || code[end] == '_'))
      end++;
    auto found = enough.find(code.substr(at + 5, end - at - 5));
    if (found == enough.end() || !seen.insert(found->first).second) continue;
    auto there = [&](const std::string& header) { return have.count(header) > 0; };
    if (std::any_of(found->second.begin(), found->second.end(), there)) continue;
    complaints.push_back(path + ": std::" + found->first + " without #include <" +
                         found->second[0] + ">");
  }
  return complaints;
}

Complaints standard_headers(const Tree& tree) {
  Complaints all;
  for (const auto& [path, source] : tree) {
    Complaints own = standard_headers(tree, path);
    all.insert(all.end(), own.begin(), own.end());
  }
  return all;
}

void expect_none(const Complaints& complaints) {
  for (const std::string& complaint : complaints) FAIL_CHECK(complaint);
  CHECK(complaints.empty());
}

bool only(const Complaints& complaints, const std::string& part) {
  return complaints.size() == 1 && complaints[0].find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("every type, template and inline function has one definition in the whole tree") {
  expect_none(one_definition(tree_as_it_stands()));
  const std::string heads = "namespace murmur::cuda {\nstruct Heads {\n  int size;\n};\n}\n";
  Tree two = {
      {"a.h", "namespace murmur {\nnamespace cuda {\nstruct Heads final : Base {};\n}\n}\n"},
      {"b.cu", heads}};
  CHECK(only(one_definition(two), "b.cu: defines murmur::cuda::Heads, as a.h does"));
  two.at("b.cu") = "namespace murmur::cuda {\nnamespace {\nstruct Heads {};\n}\n}\n";
  CHECK(one_definition(two).empty());
  two.at("b.cu") =
      "namespace murmur::cuda {\nstruct Heads;  // struct Heads {\nstruct Other {\n"
      "  struct Heads {};\n};\n}\n";
  CHECK(one_definition(two).empty());
  Tree functions = {{"a.h", "inline int twice(int x) {\n  return 2 * x;\n}\n"},
                    {"b.cpp",
                     "template <class T>\nint half(T x) { return x / 2; }\n"
                     "inline int twice(int x) { return x + x; }\n"},
                    {"c.cpp", "inline int twice(double x) { return int(2 * x); }\n"}};
  CHECK(only(one_definition(functions), "b.cpp: defines twice(int x), as a.h does"));
}

TEST_CASE("who uses a name of std:: includes its header, or a project header that does") {
  expect_none(standard_headers(tree_as_it_stands()));
  Tree tree = {{"a.h", "#include <algorithm>\n"},
               {"b.cpp", "#include <cmath>\n\n#include \"a.h\"\nint x = std::max(1, 2);\n"},
               {"c.cpp", "#include <cmath>\nint x = std::clamp(1, 2, 3);  // std::sort\n"}};
  CHECK(only(standard_headers(tree), "c.cpp: std::clamp without #include <algorithm>"));
}
