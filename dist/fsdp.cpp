// dist/fsdp.cpp - everything divided by rows: weights, gradients and the optimizers' state (scheme
// S3; Algorithm 2 of NorMuon, arXiv 2510.05491).
//
//   forward and backward reach a block   its weights are there; the next block's begin to travel
//   they have passed it                  its weights are given back                          2 f b
//   backward has passed it               its gradients are summed, to whoever keeps a row      f b
//   the update   momentum of the rows, gathered to the matrix's owner                          f b
//   / N
//                orthogonalisation, the neurons' second moments and the rescaling there
//                the direction's rows back                                                     f b
//                / N
//
// The owner has the whole matrix, so the rescaling is exact; it keeps the second moments of its
// matrices. An optimizer that does not split its direction (Optimizer::begin) has its gradient
// gathered instead, and all its state with the owner.
#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "dist/collectives.h"
#include "dist/ownership.h"
#include "dist/strategy.h"
#include "optim/update.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

const std::string kFetch = "weights", kGradients = "gradients", kRows = "rows to owners",
                  kDirections = "directions to rows";

class Fsdp final : public Strategy {
 public:
  std::function<Cut(const Bank&)> kept() override {
    return [this](const Bank& whole) { return even_cut(whole, c().rank(), c().size()); };
  }

  Share start(Parameters& parameters, const std::vector<Route>& routes) override {
    Strategy::start(parameters, routes);
    const std::vector<Bank>& whole = parameters.whole_banks();
    owned_ = owners(whole, assign_routes(routes, whole), c().size());
    for (const Whole& w : parameters.wholes()) units_ = std::max(units_, w.unit + 1);
    parameters.events = {[this](int unit, bool backward) { begins(unit, backward); },
                         [this](int unit, bool backward) { ends(unit, backward); }};
    Share share;
    share.banks = parameters.banks();
    for (size_t i = 0; i < whole.size(); i++)
      share.whole.push_back(cut(whole[i], owner_cut(i, c().rank())));
    share.sum_squares = sum_squares();
    share.join_scores = join_scores();
    share.gather = [this](const Tensors& rows, const Tensors& whole) { gather(rows, whole); };
    share.scatter = [this](const Tensors& whole, const Tensors& rows) { scatter(whole, rows); };
    return share;
  }

  void begin_pass(bool first, bool) override {
    first_pass_ = first;
    training_ = true;
  }

  std::vector<std::string> kinds() const override {
    return {kFetch, kGradients, kRows, kDirections};
  }
  Plan plan(const std::vector<Bank>& banks, const std::vector<const Route*>& routes,
            DType activations, int ranks) const override;
  double published_sends(int ranks) const override {
    double n = double(ranks), f = (n - 1) / n;
    return 3 * f + 2 * f / n;
  }

 private:
  using Whole = Parameters::Whole;

  template <class F>
  void each_of(int unit, const F& f) const {
    for (const Whole& whole : parameters().wholes()) {
      if (whole.unit == unit) f(whole);
    }
  }
  // By rank: the rows it keeps of a whole tensor.
  Pieces by_keeper(const Whole& whole, const Tensor& tensor) const {
    const Bank& bank = parameters().whole_banks()[whole.bank];
    int64_t members = tensor.shape()[0];
    Tensor rows = tensor.view({members * bank.rows, bank.cols});
    Pieces pieces;
    for (int r = 0; r < c().size(); r++) {
      Cut k = even_cut(bank, r, c().size());
      auto member = [&](int64_t m) { return std::clamp<int64_t>(m - whole.member, 0, members); };
      int64_t begin = bank.rows == 1 ? member(k.member) : k.row,
              end = bank.rows == 1 ? member(k.member_end) : k.row_end;
      pieces.push_back({rows.slice(begin, end)});
    }
    return pieces;
  }
  // The same rows where they are kept.
  Tensor kept_rows(const Whole& whole, const Tensor& bank) const {
    const Bank& all = parameters().whole_banks()[whole.bank];
    if (all.rows == 1) {
      int64_t first = even_cut(all, c().rank(), c().size()).member, kept = bank.shape()[0];
      auto place = [&](int64_t m) { return std::clamp<int64_t>(m - first, 0, kept); };
      return bank.view({kept, bank.cols()})
          .slice(place(whole.member), place(whole.member + whole.used.shape()[0]));
    }
    return bank.slice(whole.member, whole.member + 1).view({bank.shape()[1], bank.cols()});
  }

  void begins(int unit, bool backward) {
    bool there = unit == 0 && backward;  // it stayed
    if (!there) {
      start_fetch(unit);
      finish_fetch(unit);
    }
    // The next block's weights travel while this one works.
    int next = !backward ? unit + 1 : unit == 0 ? units_ - 1 : unit - 1;
    if (next > 0 && next < units_) start_fetch(next);
    if (!backward) return;
    each_of(unit, [&](const Whole& whole) {
      whole.gradient.take_memory_again();
      for_members(whole, [](const Parameter& p) { p.var.reset_gradient(); });
    });
  }

  void ends(int unit, bool backward) {
    if (unit == 0 && !backward && training_) return;  // the head's backward comes at once
    if (backward) {
      finish_sums();  // of the block before; these travel while the next one works
      start_sum(unit);
      if (unit == 0) finish_sums();
    }
    each_of(unit, [&](const Whole& whole) { whole.used.give_back_memory(); });
    if (unit == 0) training_ = false;
  }

  void start_fetch(int unit) {
    if (fetches_.count(unit)) return;
    Pieces all{size_t(c().size())};
    each_of(unit, [&](const Whole& whole) {
      whole.used.take_memory_again();
      const Bank& bank = parameters().banks()[whole.bank];
      Pieces pieces = by_keeper(whole, whole.used);
      Tensor own = pieces[size_t(c().rank())][0];
      Tensor kept = kept_rows(whole, whole.used.dtype() == DType::bf16 ? bank.shadow : bank.value);
      if (own.numel() > 0) ops::copy(kept, own);
      for (size_t r = 0; r < pieces.size(); r++) all[r].push_back(pieces[r][0]);
    });
    fetches_.emplace(unit, AllGather(c(), of_unit(kFetch, unit), all));
  }

  void finish_fetch(int unit) {
    fetches_.at(unit).finish();
    fetches_.erase(unit);
    each_of(unit, [](const Whole& whole) {
      for (const auto& [from, to] : whole.roundings) {
        Tensor rounded = to;
        ops::copy(from, rounded);
      }
    });
  }

  void start_sum(int unit) {
    Pieces all{size_t(c().size())};
    each_of(unit, [&](const Whole& whole) {
      for_members(whole, [](const Parameter& p) {
        check(bool(p.var.gradient()), [&] { return "fsdp: '" + p.name + "' got no gradient"; });
      });
      Pieces pieces = by_keeper(whole, whole.gradient);
      for (size_t r = 0; r < pieces.size(); r++) all[r].push_back(pieces[r][0]);
    });
    sums_.push_back(
        {unit, all[size_t(c().rank())], ReduceScatter(c(), of_unit(kGradients, unit), all)});
  }

  void finish_sums() {
    for (Sum& sum : sums_) {
      sum.scatter.finish();
      size_t i = 0;
      each_of(sum.unit, [&](const Whole& whole) {
        Tensor own = sum.own[i++];
        Tensor kept = kept_rows(whole, parameters().banks()[whole.bank].gradient);
        if (own.numel() > 0) ops::scale(1, own, {kept, !first_pass_});
        whole.gradient.give_back_memory();
      });
    }
    sums_.clear();
  }

  template <class F>
  void for_members(const Whole& whole, const F& f) const {
    const Bank& bank = parameters().whole_banks()[whole.bank];
    for (int64_t k = 0; k < whole.used.shape()[0]; k++) f(*bank.members[size_t(whole.member + k)]);
  }

  // Whole matrices of a bank that `rank` works on. Vectors are whole where they are kept.
  Cut owner_cut(size_t i, int rank) const {
    const Bank& bank = parameters().whole_banks()[i];
    if (bank.rows == 1) return even_cut(bank, rank, c().size());
    for (const Owned& o : owned_[size_t(rank)]) {
      if (o.bank == i && o.cut.rows() == bank.rows) return o.cut;
    }
    return {0, 0, 0, bank.rows};
  }

  // Between the rows that rank `keeper` keeps of all matrices and the whole matrices of an owner:
  // (K, rows, n) that travel, and (K, m, n) in which they are put together.
  static Tensor rows_of(const Tensor& whole, const Cut& kept) {
    int64_t cols = whole.cols(), count = whole.shape()[0];
    return whole.view({count, whole.shape()[1] * cols})
        .columns(kept.row * cols, kept.row_end * cols);
  }
  static Tensor flat_rows(const Tensor& rows) {
    return rows.view({rows.shape()[0], rows.shape()[1] * rows.cols()});
  }

  // What travels, by the rank at the other end: slices of the rows that are kept here, and room for
  // the rows of whole matrices here that are kept there. Vectors are whole where they are kept.
  struct Travel {
    Pieces rows, parts;
  };
  Travel travel(const Tensors& rows, const Tensors& whole) const {
    Travel t{Pieces(size_t(c().size())), Pieces(size_t(c().size()))};
    for (size_t i = 0; i < rows.size(); i++) {
      const Bank& bank = parameters().whole_banks()[i];
      if (!rows[i] || bank.rows == 1) continue;
      for (int r = 0; r < c().size(); r++) {
        Cut owned = owner_cut(i, r), kept = even_cut(bank, r, c().size());
        t.rows[size_t(r)].push_back(rows[i].slice(owned.member, owned.member_end));
        t.parts[size_t(r)].push_back(Tensor({whole[i].shape()[0], kept.rows(), bank.cols},
                                            rows[i].dtype(), rows[i].device()));
      }
    }
    return t;
  }
  void copy_vectors(const Tensors& from, const Tensors& to) const {
    for (size_t i = 0; i < from.size(); i++) {
      if (!from[i] || from[i].numel() == 0 || parameters().whole_banks()[i].rows > 1) continue;
      Tensor here = to[i];
      ops::copy(from[i], here);
    }
  }

  void gather(const Tensors& rows, const Tensors& whole) {
    Travel t = travel(rows, whole);
    all_to_all(c(), kRows, t.rows, t.parts);
    each_piece(whole, t.parts,
               [](const Tensor& part, Tensor& in_whole) { ops::copy(part, in_whole); });
    copy_vectors(rows, whole);
  }

  void scatter(const Tensors& whole, const Tensors& rows) {
    Travel t = travel(rows, whole);
    each_piece(whole, t.parts,
               [](Tensor& part, const Tensor& in_whole) { ops::copy(in_whole, part); });
    all_to_all(c(), kDirections, t.parts, t.rows);
    copy_vectors(whole, rows);
  }

  // Calls copy(what travels from or to a rank, its place in the whole) for all that is not empty.
  template <class F>
  void each_piece(const Tensors& whole, const Pieces& pieces, const F& copy) const {
    for (int r = 0; r < c().size(); r++) {
      size_t next = 0;
      for (size_t i = 0; i < whole.size(); i++) {
        const Bank& bank = parameters().whole_banks()[i];
        if (!whole[i] || bank.rows == 1) continue;
        Tensor piece = flat_rows(pieces[size_t(r)][next++]);
        if (piece.numel() == 0) continue;
        Tensor place = rows_of(whole[i], even_cut(bank, r, c().size()));
        copy(piece, place);
      }
    }
  }

  struct Sum {
    int unit;
    Tensors own;
    ReduceScatter scatter;
  };
  Ownership owned_;
  int units_ = 0;
  bool first_pass_ = true, training_ = false;
  std::map<int, AllGather> fetches_;  // under way, by unit
  std::deque<Sum> sums_;              // under way
};

Plan Fsdp::plan(const std::vector<Bank>& banks, const std::vector<const Route*>& routes,
                DType activations, int ranks) const {
  Plan plan;
  Ownership owned = owners(banks, routes, ranks);
  std::vector<double> flops = orthogonalization_flops(owned, banks, routes);
  plan.flops = *std::max_element(flops.begin(), flops.end());
  std::vector<double> state(size_t(ranks), 0);
  std::set<int> units;
  double n = double(ranks);
  int moved = 0;  // kinds of rows that owners gather: what begin() made, and perhaps weights
  for (size_t i = 0; i < banks.size(); i++) {
    const Bank& bank = banks[i];
    const Optimizer& optimizer = *routes[i]->use.optimizer;
    double elements = double(bank.count * bank.rows * bank.cols);
    bool block = bank.members[0]->unit > 0;
    for (const Parameter* p : bank.members) units.insert(p->unit);
    double used = activations == DType::bf16 && bank.role != Role::vector ? 2 : 4;
    plan.bytes += (n - 1) * elements * ((block ? 2 : 1) * used + 4);
    double tensors = block ? double(bank.count) : 1, keepers = 0;
    for (int r = 0; r < ranks; r++) {
      Cut kept = even_cut(bank, r, ranks);
      if (kept.members() * kept.rows() > 0) keepers++;
    }
    plan.messages += (n - 1) * tensors * keepers * (block ? 3 : 2);
    bool values = optimizer.decays_itself() && routes[i]->decay && optimizer.weight_decay != 0;
    if (!optimizer.elementwise()) moved = std::max(moved, values ? 2 : 1);
    if (optimizer.elementwise() || bank.rows == 1) {
      for (int r = 0; r < ranks; r++) {
        Cut kept = even_cut(bank, r, ranks);
        state[size_t(r)] += 4 * state_elements(bank, *routes[i]) *
                            double(kept.members() * kept.rows()) / double(bank.count * bank.rows);
      }
      continue;
    }
    Bank shapes = with_row_blocks(bank, routes[i]->row_blocks);
    Tensor sample({1}, DType::f32);
    for (int r = 0; r < ranks; r++) {
      double mine = 0;
      for (const Owned& o : owned[size_t(r)]) {
        if (o.bank == i) mine = double(o.cut.members());
      }
      Cut kept = even_cut(bank, r, ranks);
      for (const StateShape& s : optimizer.state(shapes))
        state[size_t(r)] +=
            4 * double(s.shape.numel()) *
            (s.entrywise ? double(kept.rows()) / double(bank.rows) : mine / double(bank.count));
      // To the owner from all others, and back.
      plan.bytes += mine * double(bank.rows - kept.rows()) * double(bank.cols) *
                    (double(size_of(optimizer.begun_type(sample))) + 4 + (values ? 4 : 0));
      for (int s = 0; s < ranks; s++) {
        if (s != r && mine > 0 && even_cut(bank, s, ranks).rows() > 0)
          plan.messages += values ? 3 : 2;
      }
    }
  }
  // Three a block; the weights of unit 0 stay. Rows of each kind to the owners, directions back.
  if (ranks > 1) plan.rounds = 3.0 * double(units.size()) - 1 + (moved > 0 ? moved + 1 : 0);
  plan.state_bytes = *std::max_element(state.begin(), state.end());
  return plan;
}

}  // namespace

std::unique_ptr<Strategy> make_fsdp() { return std::make_unique<Fsdp>(); }

}  // namespace murmur
