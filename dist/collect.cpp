// dist/collect.cpp - lists first, then the tensors that are wanted.
#include "dist/collect.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "dist/collectives.h"
#include "tensor/ops.h"

namespace murmur {
namespace {

const std::string kLists = "lists of tensors", kTensors = "tensors";

// What a piece is, without its elements.
struct Entry {
  std::string name;
  Shape whole;
  int64_t begin, count;
  DType dtype;
};

std::string to_text(const std::vector<Piece>& pieces) {
  std::string text;
  for (const Piece& p : pieces) {
    text += fmt::format("{} {} {} {} {}", p.name, p.begin, p.tensor.numel(), int(p.tensor.dtype()),
                        p.whole.rank());
    for (int i = 0; i < p.whole.rank(); i++) text += fmt::format(" {}", p.whole[i]);
    text += "\n";
  }
  return text;
}

std::vector<Entry> from_text(const std::string& text) {
  std::vector<Entry> entries;
  std::istringstream lines(text);
  std::string name;
  while (lines >> name) {
    Entry e{name, {}, 0, 0, DType::f32};
    int dtype, rank;
    lines >> e.begin >> e.count >> dtype >> rank;
    e.dtype = DType(dtype);
    for (int64_t size; rank > 0 && lines >> size; rank--) e.whole.append(size);
    entries.push_back(e);
  }
  return entries;
}

// A text, a character an element, to or from rank 0: its length first.
std::string text_between(Communicator& c, int from, int to, const std::string& text,
                         const std::string& what = kLists, bool patiently = false) {
  bool sends = c.rank() == from;
  Tensor length = Tensor::of({double(text.size())}, {1}, DType::i32);
  auto move = [&](const Tensor& x) {
    if (x.numel() == 0) return;
    if (sends)
      c.exchange(what, {{to, x}}, {});
    else if (patiently)
      c.exchange_patiently(what, {}, {{from, x}});
    else
      c.exchange(what, {}, {{from, x}});
  };
  move(length);
  int64_t size = int64_t(length.data<int32_t>()[0]);
  Tensor characters({size}, DType::i32);
  if (sends) std::copy(text.begin(), text.end(), characters.data<int32_t>());
  move(characters);
  std::string result(size_t(size), ' ');
  std::transform(characters.data<int32_t>(), characters.data<int32_t>() + size, result.begin(),
                 [](int32_t i) { return char(i); });
  return result;
}

Tensor flat(const Tensor& x) { return x.view({x.numel()}); }

}  // namespace

std::vector<Collected> collect(Communicator& c, const std::vector<Piece>& pieces) {
  if (c.rank() > 0) {
    text_between(c, c.rank(), 0, to_text(pieces));
    std::istringstream wanted(text_between(c, 0, c.rank(), {}));
    for (size_t i; wanted >> i;) c.exchange(kTensors, {{0, to(Device::cpu, pieces[i].tensor)}}, {});
    return {};
  }
  std::vector<Collected> all;
  std::map<std::string, size_t> place;
  std::vector<std::map<int64_t, int64_t>> have;  // by tensor: begin -> end
  // The tensor to fill with a piece, or nothing where its elements are there already.
  auto wanted = [&](const Entry& e) -> Tensor {
    auto [at, fresh] = place.try_emplace(e.name, all.size());
    if (fresh) {
      all.push_back({e.name, {}});
      have.emplace_back();
    }
    auto next = have[at->second].upper_bound(e.begin);
    bool there = next != have[at->second].begin() && std::prev(next)->second >= e.begin + e.count;
    if (e.count == 0 || there) return {};
    Tensor& whole = all[at->second].tensor;
    if (!whole) whole = Tensor(e.whole, e.dtype);
    have[at->second][e.begin] = e.begin + e.count;
    return flat(whole).slice(e.begin, e.begin + e.count);
  };
  for (const Piece& p : pieces) {
    bool complete = p.tensor.numel() == p.whole.numel() && !place.count(p.name);
    if (complete) {
      place[p.name] = all.size();
      all.push_back({p.name, to(Device::cpu, p.tensor).view(p.whole)});
      have.push_back({{0, p.whole.numel()}});
    } else if (Tensor to = wanted({p.name, p.whole, p.begin, p.tensor.numel(), p.tensor.dtype()})) {
      ops::copy(flat(p.tensor), to);
    }
  }
  for (int rank = 1; rank < c.size(); rank++) {
    std::vector<Entry> entries = from_text(text_between(c, rank, 0, {}));
    std::string numbers;
    std::vector<Tensor> places;
    for (size_t i = 0; i < entries.size(); i++) {
      if (Tensor to = wanted(entries[i])) {
        places.push_back(to);
        numbers += fmt::format("{} ", i);
      }
    }
    text_between(c, 0, rank, numbers);
    for (const Tensor& to : places) c.exchange(kTensors, {}, {{rank, to}});
  }
  for (size_t i = 0; i < all.size(); i++) {
    int64_t end = 0;
    for (auto [begin, stop] : have[i]) end = begin == end ? stop : end;
    check(all[i].tensor && end == all[i].tensor.numel(), [&] {
      return fmt::format("collect: '{}': elements from {} on are on no rank", all[i].name, end);
    });
  }
  return all;
}

std::set<std::string> distribute(Communicator& c, const Find& find,
                                 const std::vector<Piece>& pieces) {
  if (c.rank() > 0) {
    text_between(c, c.rank(), 0, to_text(pieces));
    for (const Piece& p : pieces) {
      if (p.tensor.numel() == 0) continue;
      Tensor received(flat(p.tensor).shape(), p.tensor.dtype()), place = flat(p.tensor);
      c.exchange(kTensors, {}, {{0, received}});
      ops::copy(received, place);
    }
    return {};
  }
  std::set<std::string> names;
  for (const Piece& p : pieces) {
    Tensor whole = find(p.name, p.whole), place = flat(p.tensor);
    names.insert(p.name);
    if (place.numel() == 0) continue;
    ops::copy(flat(whole).slice(p.begin, p.begin + place.numel()), place);
  }
  for (int rank = 1; rank < c.size(); rank++) {
    for (const Entry& e : from_text(text_between(c, rank, 0, {}))) {
      Tensor whole = find(e.name, e.whole);
      names.insert(e.name);
      if (e.count == 0) continue;
      Tensor part = flat(whole).slice(e.begin, e.begin + e.count), typed(part.shape(), e.dtype);
      ops::copy(part, typed);
      c.exchange(kTensors, {{rank, typed}}, {});
    }
  }
  return names;
}

std::vector<std::string> gather_texts(Communicator& c, const std::string& what,
                                      const std::string& text) {
  if (c.rank() > 0) {
    text_between(c, c.rank(), 0, text, what);
    return {};
  }
  std::vector<std::string> all = {text};
  for (int rank = 1; rank < c.size(); rank++) all.push_back(text_between(c, rank, 0, {}, what));
  return all;
}

std::string text_from_rank_zero(Communicator& c, const std::string& what, const std::string& text) {
  if (c.rank() > 0) return text_between(c, 0, c.rank(), {}, what, true);
  for (int rank = 1; rank < c.size(); rank++) text_between(c, 0, rank, text, what);
  return text;
}

int64_t from_rank_zero(Communicator& c, const std::string& what, int64_t value) {
  Tensor x = Tensor::of({double(value)}, {1}, DType::f64);
  broadcast(c, what, 0, {x});
  return int64_t(item(x));
}

}  // namespace murmur
