// dist/faults.cpp - the script, read and asked.
#include "dist/faults.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <regex>
#include <sstream>

#include "tensor/check.h"

namespace murmur {

Faults::Faults(const std::string& script) {
  static const std::regex form(
      R"((lose|rejoin|skip|delay|straggle):(\d{1,6})@(\d{1,15})(-(\d{1,15}))?(:(\d{1,6}(\.\d{1,12})?))?)");
  std::istringstream in(script);
  for (std::string text; std::getline(in, text, ',');) {
    std::erase(text, ' ');
    if (text.empty()) continue;
    auto refuse = [&](const std::string& what) {
      throw InputError(fmt::format("faults: '{}' {}; see docs/decentralised.md", text, what));
    };
    std::smatch m;
    if (!std::regex_match(text, m, form))
      refuse("is no event; write lose:5@300, rejoin:5@400, skip:3@50-60 or delay:2@100-150:0.05");
    Event event{text, m[1], std::stoi(m[2]), std::stoll(m[3]), 0, 0};
    bool timed = event.kind == "delay" || event.kind == "straggle";
    bool moment = event.kind == "lose" || event.kind == "rejoin";
    if (moment && m[4].matched) refuse("happens at one step");
    if (timed != m[7].matched)
      refuse(timed ? "needs seconds, as in delay:2@100-150:0.05" : "takes no seconds");
    event.last = m[4].matched ? std::stoll(m[5]) : event.first;
    if (timed) event.seconds = std::strtod(m[7].str().c_str(), nullptr);
    if (event.first < 1 || event.last < event.first) refuse("has steps in no order, from 1 up");
    if (event.seconds > 3600) refuse("takes more than an hour");
    events_.push_back(event);
  }
  std::stable_sort(events_.begin(), events_.end(),
                   [](const Event& a, const Event& b) { return a.first < b.first; });
  std::set<int> gone;
  for (const Event& event : events_) {
    bool lost = gone.count(event.node) > 0;
    if (event.kind == "lose" && lost)
      throw InputError(fmt::format("faults: '{}': that node is lost already", event.text));
    if (event.kind == "rejoin" && !lost)
      throw InputError(fmt::format("faults: '{}': that node was not lost before", event.text));
    if (event.kind == "lose") gone.insert(event.node);
    if (event.kind == "rejoin") gone.erase(event.node);
  }
}

bool Faults::any(const std::string& kind) const {
  return std::any_of(events_.begin(), events_.end(),
                     [&](const Event& event) { return event.kind == kind; });
}
bool Faults::loses() const { return any("lose"); }
bool Faults::skips() const { return any("skip"); }

std::vector<int> Faults::members(int64_t step, int nodes) const {
  std::set<int> there;
  for (int node = 0; node < nodes; node++) there.insert(there.end(), node);
  for (const Event& event : events_) {
    if (event.first > step) break;
    if (event.kind == "lose") there.erase(event.node);
    if (event.kind == "rejoin") there.insert(event.node);
  }
  return {there.begin(), there.end()};
}

std::set<int> Faults::skipped(int64_t step) const {
  std::set<int> nodes;
  for (const Event& event : events_) {
    if (event.kind == "skip" && event.first <= step && step <= event.last) nodes.insert(event.node);
  }
  return nodes;
}

double Faults::seconds(const std::string& kind, int64_t step, int node) const {
  double sum = 0;
  for (const Event& event : events_) {
    bool now = event.first <= step && step <= event.last;
    if (event.kind == kind && event.node == node && now) sum += event.seconds;
  }
  return sum;
}
double Faults::delay(int64_t step, int node) const { return seconds("delay", step, node); }
double Faults::straggle(int64_t step, int node) const { return seconds("straggle", step, node); }

void Faults::check_nodes(int nodes) const {
  for (const Event& event : events_) {
    if (event.node >= nodes)
      throw InputError(
          fmt::format("faults: '{}': the run has nodes 0 to {}", event.text, nodes - 1));
    std::vector<int> before = members(event.first - 1, nodes), now = members(event.first, nodes);
    bool stays = std::any_of(now.begin(), now.end(), [&](int node) {
      return std::binary_search(before.begin(), before.end(), node);
    });
    if (!stays)
      throw InputError(fmt::format("faults: '{}': nobody would be left of step {}", event.text,
                                   event.first - 1));
  }
}

}  // namespace murmur
