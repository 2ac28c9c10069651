// optim/router.h - which optimizer moves which bank, with which rate and decay. Chosen by role.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/parameter.h"
#include "optim/optimizer.h"

namespace murmur {

struct NamedOptimizer {
  std::string name;
  std::shared_ptr<Optimizer> optimizer;
};

// One row of the routing table.
struct Route {
  Role role;
  NamedOptimizer use;
  double lr_scale = 1;  // of the optimizer's learning rate
  bool decay = true;    // apply its weight decay
  // How packed queries, keys and values are shown to the optimizer: as the one matrix they are
  // (whole), as three (qkv), or as three for every head (head).
  std::string row_blocks = "whole";
};

inline const std::vector<std::string> kRowBlocks = {"whole", "qkv", "head"};

// A bank as its optimizer sees it, (K b, m / b, n): each matrix cut into b blocks of rows.
Bank with_row_blocks(const Bank& bank, const std::string& row_blocks);

// The default table: `main` takes the matrices, and all other roles too unless it is for matrices
// only; those then go to `auxiliary`. Vectors (biases, gains) do not decay. `all_matrices`: an
// optimizer for matrices takes embedding and head as well.
std::vector<Route> default_routes(const NamedOptimizer& main, const NamedOptimizer& auxiliary,
                                  const std::string& row_blocks = "whole",
                                  bool all_matrices = false);

// The route of every bank, in order. InputError where a parameter has none or two, or a role its
// optimizer does not take.
std::vector<const Route*> assign_routes(const std::vector<Route>& routes,
                                        const std::vector<Bank>& banks);

// The table a run prints at its start.
std::string routing_table(const std::vector<Route>& routes, const std::vector<Bank>& banks);

}  // namespace murmur
