// optim/router.cpp - the routing table: made, checked, printed.
#include "optim/router.h"

#include <fmt/format.h>

namespace murmur {

std::vector<Route> default_routes(const NamedOptimizer& main, const NamedOptimizer& auxiliary) {
  std::vector<Route> routes;
  for (Role role : kRoles) {
    bool to_main = role == Role::matrix || !main.optimizer->matrices_only();
    routes.push_back({role, to_main ? main : auxiliary, 1, role != Role::vector});
  }
  return routes;
}

std::vector<const Route*> assign_routes(const std::vector<Route>& routes,
                                        const std::vector<Bank>& banks) {
  std::vector<const Route*> assigned;
  for (const Bank& bank : banks) {
    const Route* found = nullptr;
    const std::string& first = bank.members[0]->name;
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
    if (found->use.optimizer->matrices_only() && bank.role != Role::matrix) {
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
    table += fmt::format("{:<22} {:>5} {:>11}  {:<10} {:>9.3g} {:>7.3g}\n", bank.name, bank.count,
                         bank.count * bank.rows * bank.cols, assigned[i]->use.name,
                         o.learning_rate * assigned[i]->lr_scale,
                         assigned[i]->decay ? o.weight_decay : 0.0);
  }
  return table;
}

}  // namespace murmur
