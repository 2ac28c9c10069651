// tests/house/rooms_test.cpp - the rooms stay apart, headers stay light, files say what they are.
//
// The tree is read into memory once; every rule is a function from a tree to complaints. The tree
// as it stands must have none, and a tree with one planted mistake must have exactly that one.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "train/files.h"  // read_file

namespace {

namespace fs = std::filesystem;

using Tree = std::map<std::string, std::string>;  // path from the root -> text
using Complaints = std::vector<std::string>;

// Lower rooms first: a room includes itself and those before it.
const std::vector<std::string> kRooms = {"tensor", "autograd", "nn", "optim", "dist", "train"};

// The one header that is not in the tree: CMakeLists.txt makes it from tensor/ops.h.
const std::string kGenerated = "declared_ops.def";

bool starts_with(const std::string& text, const std::string& start) {
  return text.rfind(start, 0) == 0;
}

bool is_header(const std::string& path) {
  std::string extension = fs::path(path).extension();
  return extension == ".h" || extension == ".cuh";
}

bool is_source(const std::string& path) {
  std::string extension = fs::path(path).extension();
  return is_header(path) || extension == ".cpp" || extension == ".cu" || extension == ".def";
}

// The sources of the rooms. Tests are not among them: they may look at everything.
Tree read_tree() {
  Tree tree;
  for (const std::string& room : kRooms) {
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(MURMUR_SOURCE_DIR) / room)) {
      std::string path = fs::relative(entry.path(), MURMUR_SOURCE_DIR).generic_string();
      if (entry.is_regular_file() && is_source(path))
        tree[path] = murmur::read_file(entry.path().string());
    }
  }
  return tree;
}

const Tree& tree_as_it_stands() {
  static const Tree tree = read_tree();
  return tree;
}

struct Include {
  bool system;  // <..>
  std::string name;
};

std::vector<Include> includes_of(const std::string& text) {
  static const std::regex line("^[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"\n]+)[>\"]",
                               std::regex::ECMAScript | std::regex::multiline);
  std::vector<Include> includes;
  for (std::sregex_iterator it(text.begin(), text.end(), line), end; it != end; ++it)
    includes.push_back({(*it)[1] == "<", (*it)[2]});
  return includes;
}

int floor_of(const std::string& path) {
  std::string room = path.substr(0, path.find('/'));
  auto it = std::find(kRooms.begin(), kRooms.end(), room);
  return it == kRooms.end() ? -1 : int(it - kRooms.begin());
}

Complaints one_way(const Tree& tree) {
  Complaints complaints;
  for (const auto& [path, text] : tree) {
    for (const Include& include : includes_of(text)) {
      const std::string& to = include.name;
      if (include.system) {
        if (floor_of(to) >= 0) complaints.push_back(path + ": <" + to + "> wants quotes");
      } else if (to == kGenerated) {
        if (!starts_with(path, "tensor/"))
          complaints.push_back(path + ": " + kGenerated + " is for the engines in tensor/");
      } else if (!tree.count(to)) {
        complaints.push_back(path + ": \"" + to + "\" is no file, seen from the root");
      } else if (floor_of(to) > floor_of(path)) {
        complaints.push_back(path + ": includes " + to + ", which is a room above");
      }
    }
  }
  return complaints;
}

// What is behind tensor/ops.h and tensor/backend.h is reached through them, not around them.
Complaints engines_are_closed(const Tree& tree) {
  Complaints complaints;
  for (const auto& [path, text] : tree) {
    for (const Include& include : includes_of(text)) {
      for (const std::string folder : {"tensor/cpu/", "tensor/cuda/"}) {
        if (starts_with(include.name, folder) && !starts_with(path, folder) &&
            !starts_with(path, "tensor/kernel/"))  // each of its teams is at home in one of them
          complaints.push_back(path + ": includes " + include.name +
                               "; call what tensor/ops.h declares");
      }
    }
  }
  return complaints;
}

struct Weight {
  std::set<std::string> project;  // files reached, the header itself left out
  std::set<std::string> system;   // named by the header or by a file it reaches
};

Weight weight_of(const Tree& tree, const std::string& header) {
  Weight weight;
  std::vector<std::string> open = {header};
  while (!open.empty()) {
    std::string path = open.back();
    open.pop_back();
    if (!tree.count(path)) continue;
    for (const Include& include : includes_of(tree.at(path))) {
      if (include.system) {
        weight.system.insert(include.name);
      } else if (include.name != header && weight.project.insert(include.name).second) {
        open.push_back(include.name);
      }
    }
  }
  return weight;
}

// What each front header may pull in. Raise a number only on purpose, with the reason in the
// commit.
struct Budget {
  std::string header;
  size_t project, system;
};
const std::vector<Budget> kBudgets = {
    {"tensor/tensor.h", 7, 10},       {"tensor/ops.h", 9, 10}, {"autograd/var.h", 10, 12},
    {"autograd/functions.h", 12, 12}, {"nn/gpt.h", 18, 14},    {"optim/optimizer.h", 14, 16},
    {"dist/strategy.h", 14, 16},
};

Complaints header_budgets(const Tree& tree) {
  Complaints complaints;
  for (const Budget& budget : kBudgets) {
    if (!tree.count(budget.header)) {
      complaints.push_back(budget.header + ": has a budget but is not there");
      continue;
    }
    Weight weight = weight_of(tree, budget.header);
    auto judge = [&](const char* kind, const std::set<std::string>& found, size_t allowed) {
      if (found.size() <= allowed) return;
      std::string names;
      for (const std::string& name : found) names += " " + name;
      complaints.push_back(budget.header + ": reaches " + std::to_string(found.size()) + " " +
                           kind + " headers, budget " + std::to_string(allowed) + ":" + names);
    };
    judge("project", weight.project, budget.project);
    judge("system", weight.system, budget.system);
  }
  for (const char* heavy : {"functional", "iostream"}) {
    if (weight_of(tree, "tensor/tensor.h").system.count(heavy))
      complaints.push_back(std::string("tensor/tensor.h: reaches <") + heavy + ">");
  }
  return complaints;
}

Complaints clean_headers(const Tree& tree) {
  static const std::regex using_namespace("(^|\n)[ \t]*using[ \t]+namespace\\b");
  Complaints complaints;
  for (const auto& [path, text] : tree) {
    if (!is_header(path)) continue;
    if (std::regex_search(text, using_namespace))
      complaints.push_back(path + ": `using namespace` in a header");
    if (text.find("\n#pragma once\n") == text.npos)
      complaints.push_back(path + ": no #pragma once");
    for (const Include& include : includes_of(text)) {
      if (include.name == "iostream" || starts_with(include.name, "nlohmann/") ||
          starts_with(include.name, "CLI/") || starts_with(include.name, "toml++/"))
        complaints.push_back(path + ": includes <" + include.name + ">; that is for .cpp files");
    }
  }
  return complaints;
}

// The first line of a source: "// tensor/shape.h - up to five sizes; ..".
Complaints first_lines(const Tree& tree) {
  Complaints complaints;
  for (const auto& [path, text] : tree) {
    std::string line = text.substr(0, text.find('\n')), start = "// " + path + " - ";
    if (!starts_with(line, start) || line.size() < start.size() + 3)
      complaints.push_back(path + ": the first line must be '" + start + "purpose', it is '" +
                           line + "'");
  }
  return complaints;
}

// CUDA and NCCL have their places. The words cuda and nccl alone may appear anywhere, as the name
// of a device or of a transport.
Complaints cuda_in_its_place(const Tree& tree) {
  static const std::regex word("cuda_runtime|cublas|nccl\\.h|\\b(cuda|cu|nccl)[A-Z]\\w*");
  Complaints complaints;
  for (const auto& [path, text] : tree) {
    std::smatch found;
    if (starts_with(path, "tensor/cuda/") || path == "dist/nccl.cpp") continue;
    if (std::regex_search(text, found, word))
      complaints.push_back(path + ": '" + found.str() +
                           "' belongs to tensor/cuda/ or dist/nccl.cpp");
  }
  return complaints;
}

// engine_v2.cpp, loss-3.h, router_old.cpp: the older one lives in the history, not beside the new.
bool has_version_suffix(const std::string& path) {
  static const std::regex suffix("[_.-](v?[0-9]+|old|new|final|copy|backup|orig|tmp)$");
  return std::regex_search(fs::path(path).stem().string(), suffix);
}

void expect_none(const Complaints& complaints) {
  for (const std::string& complaint : complaints) FAIL_CHECK(complaint);
  REQUIRE(complaints.empty());  // planted mistakes are counted on a clean tree
}

// The tree with `text` in the place of one file, or as a new one.
Tree with(const std::string& path, const std::string& text) {
  Tree tree = tree_as_it_stands();
  tree[path] = text;
  return tree;
}

// The tree with one more line at the end of a file.
Tree with_line(const std::string& path, const std::string& line) {
  return with(path, tree_as_it_stands().at(path) + line + "\n");
}

bool only(const Complaints& complaints, const std::string& part) {
  return complaints.size() == 1 && complaints[0].find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("includes go one way: tensor <- autograd <- nn <- optim <- dist <- train") {
  const Tree& tree = tree_as_it_stands();
  CHECK(tree.size() > 80);
  expect_none(one_way(tree));
  CHECK(only(one_way(with_line("tensor/tensor.cpp", "#include \"autograd/var.h\"")),
             "tensor/tensor.cpp: includes autograd/var.h"));
  CHECK(only(one_way(with_line("optim/muon.cpp", "#  include \"dist/strategy.h\"  // rank")),
             "optim/muon.cpp: includes dist/strategy.h"));
  CHECK(only(one_way(with_line("nn/gpt.h", "#include \"gpt.h\"")), "no file"));
  CHECK(only(one_way(with_line("nn/gpt.h", "#include <tensor/tensor.h>")), "wants quotes"));
  CHECK(only(one_way(with_line("nn/gpt.cpp", "#include \"declared_ops.def\"")), "for the engines"));
}

TEST_CASE("a processor's own folder is entered through tensor/ops.h and tensor/backend.h only") {
  expect_none(engines_are_closed(tree_as_it_stands()));
  CHECK(only(engines_are_closed(with_line("optim/sgd.cpp", "#include \"tensor/cpu/parallel.h\"")),
             "call what tensor/ops.h declares"));
}

TEST_CASE("front headers stay within their budgets; tensor.h without <functional>, <iostream>") {
  expect_none(header_budgets(tree_as_it_stands()));
  CHECK(only(header_budgets(with_line("optim/optimizer.h", "#include \"nn/model.h\"")),
             "optim/optimizer.h: reaches"));
  CHECK(!header_budgets(with_line("tensor/shape.h", "#include <functional>")).empty());
  CHECK(!header_budgets(with_line("tensor/check.h", "#include <iostream>")).empty());
}

TEST_CASE("headers: #pragma once, no `using namespace`, no <iostream>, JSON, TOML or flag parser") {
  expect_none(clean_headers(tree_as_it_stands()));
  CHECK(only(clean_headers(with_line("nn/mlp.h", "using namespace murmur;")), "using namespace"));
  CHECK(only(clean_headers(with_line("train/log.h", "#include <iostream>")), "<iostream>"));
  CHECK(only(clean_headers(with_line("train/list.h", "#include <nlohmann/json.hpp>")), "nlohmann"));
  CHECK(only(clean_headers(with_line("train/config.h", "#include <CLI/CLI.hpp>")), "CLI"));
  CHECK(only(clean_headers(with_line("train/config.h", "#include <toml++/toml.h>")), "toml++"));
  CHECK(only(clean_headers(with("nn/bare.h", "// nn/bare.h - nothing.\n")), "#pragma once"));
}

TEST_CASE("a source begins with its own path and its purpose") {
  expect_none(first_lines(tree_as_it_stands()));
  CHECK(only(first_lines(with("nn/head.h", "// nn/heads.h - the output.\n#pragma once\n")),
             "'// nn/head.h - purpose'"));
  CHECK(only(first_lines(with("nn/head.h", "// nn/head.h - \n#pragma once\n")), "nn/head.h"));
  CHECK(only(first_lines(with("optim/optimizers.def", "OPTIMIZER(sgd, \"..\")\n")), "first line"));
}

TEST_CASE("CUDA and NCCL types stay in tensor/cuda/ and dist/nccl.cpp") {
  expect_none(cuda_in_its_place(tree_as_it_stands()));
  CHECK(only(cuda_in_its_place(with_line("tensor/ops.h", "#include <cuda_runtime.h>")),
             "cuda_runtime"));
  CHECK(only(cuda_in_its_place(with_line("tensor/tensor.cpp", "cudaStream_t stream;")), "cudaSt"));
  CHECK(only(cuda_in_its_place(with_line("optim/update.cpp", "ncclComm_t comm;")), "ncclComm_t"));
  CHECK(cuda_in_its_place(with("tensor/cuda/map.cu", "#include <cuda_runtime.h>\n")).empty());
  CHECK(cuda_in_its_place(with("dist/nccl.cpp", "#include <nccl.h>\n")).empty());
}

TEST_CASE("every room has a README, and no file name carries a version") {
  fs::path root = MURMUR_SOURCE_DIR;
  std::vector<std::string> rooms = kRooms;
  rooms.insert(rooms.end(), {"tests", "docs"});
  for (const std::string& room : rooms) {
    CAPTURE(room);
    REQUIRE(fs::exists(root / room / "README.md"));
    CHECK(fs::file_size(root / room / "README.md") > 400);  // a few sentences at least
    for (const auto& entry : fs::recursive_directory_iterator(root / room)) {
      if (has_version_suffix(entry.path()))
        FAIL_CHECK(entry.path().string() << ": one name for one thing, without a version");
    }
  }
  CHECK(has_version_suffix("tensor/engine_v2.cpp"));
  CHECK(has_version_suffix("optim/muon-3.cpp"));
  CHECK(has_version_suffix("optim/router_old.h"));
  CHECK(!has_version_suffix("tensor/ops/relu2.h"));
  CHECK(!has_version_suffix("tests/golden/gpt2.safetensors"));
}
