// optim/router.cpp - the routing table: made, checked, printed.
#include "optim/router.h"

#include <fmt/format.h>

namespace murmur {

std::vector<Route> default_routes(const NamedOptimizer& main, const NamedOptimizer& auxiliary,
                                  const std::string& row_blocks, bool all_matrices) {
  std::vector<Route> routes;
  for (Role role : kRoles) {
    bool is_matrix = role == Role::matrix || (all_matrices && role != Role::vector);
    bool to_main = is_matrix || !main.optimizer->matrices_only();
    routes.push_back({role, to_main ? main : auxiliary, 1, role != Role::vector,
                      role == Role::matrix ? row_blocks : "whole"});
  }
  return routes;
}

Bank with_row_blocks(const Bank& bank, const std::string& row_blocks) {
  int64_t heads = bank.members.empty() ? 0 : bank.members[0]->qkv_heads, blocks = 1;
  if (heads && row_blocks == "qkv") blocks = 3;
  if (heads && row_blocks == "head") blocks = 3 * heads;
  Bank cut = bank;
  cut.count *= blocks;
  cut.rows /= blocks;
  for (Tensor* x : {&cut.value, &cut.gradient, &cut.shadow}) {
    if (*x) *x = x->view({cut.count, cut.rows, cut.cols});
  }
  return cut;
}

std::vector<const Route*> assign_routes(const std::vector<Route>& routes,
                                        const std::vector<Bank>& banks) {
  std::vector<const Route*> assigned;
  for (const Bank& bank : banks) {
    const Route* found = nullptr;
    const std::string& first = bank.members.empty() ? bank.name : bank.members[0]->name;
    for (const Route& route : routes) {
      if (route.role != bank.role) continue;
      if (found) {
        throw InputError(fmt::format(
            "routing: parameter '{}' ({}) has two optimizers: {}, {}; give the role one row", first,
            name_of(bank.role), found->use.name, route.use.name));
      }
      found = &route;
    }
    if (!found) {
      throw InputError(
          fmt::format("routing: parameter '{}' ({}) has no optimizer; give the role a row", first,
                      name_of(bank.role)));
    }
    if (found->use.optimizer->matrices_only() && bank.role == Role::vector) {
      throw InputError(fmt::format(
          "routing: parameter '{}' ({}) cannot go to {}, which is for matrices only; use adamw",
          first, name_of(bank.role), found->use.name));
    }
    assigned.push_back(found);
  }
  return assigned;
}

std::string routing_table(const std::vector<Route>& routes, const std::vector<Bank>& banks) {
  std::vector<const Route*> assigned = assign_routes(routes, banks);
  std::string table = fmt::format("{:<22} {:>5} {:>11}  {:<10} {:>9} {:>7}\n", "bank", "count",
                                  "parameters", "optimizer", "lr", "decay");
  for (size_t i = 0; i < banks.size(); i++) {
    const Bank& bank = banks[i];
    const Optimizer& o = *assigned[i]->use.optimizer;
    Bank cut = with_row_blocks(bank, assigned[i]->row_blocks);
    std::string blocks =
        cut.count == bank.count ? "" : fmt::format("  as {}x{}", cut.rows, cut.cols);
    table += fmt::format("{:<22} {:>5} {:>11}  {:<10} {:>9.3g} {:>7.3g}{}\n", bank.name, bank.count,
                         bank.count * bank.rows * bank.cols, assigned[i]->use.name,
                         o.learning_rate * assigned[i]->lr_scale,
                         assigned[i]->decay ? o.weight_decay : 0.0, blocks);
  }
  return table;
}

}  // namespace murmur
