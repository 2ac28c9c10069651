// optim/option.cpp - settings from text and to text.
#include "optim/option.h"

#include <algorithm>
#include <charconv>

#include "tensor/check.h"
#include "tensor/nearest.h"

namespace murmur {
namespace {

template <class Number>
bool parse(const std::string& text, Number& value) {
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end;
}

template <class Number>
std::string shortest(Number value) {
  char buffer[40];
  auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, end};
}

// Empty if `text` was accepted, else what is wanted.
std::string assign(const Option& option, const std::string& text) {
  if (auto* number = std::get_if<double*>(&option.value)) {
    double v = 0;
    if (!parse(text, v)) return "a number";
    if (!(v >= option.low && v <= option.high))
      return "a number from " + shortest(option.low) + " to " + shortest(option.high);
    **number = v;
  } else if (auto* count = std::get_if<int64_t*>(&option.value)) {
    int64_t v = 0;
    if (!parse(text, v)) return "a whole number";
    if (!(double(v) >= option.low && double(v) <= option.high))
      return "a whole number from " + shortest(option.low) + " to " + shortest(option.high);
    **count = v;
  } else if (auto* flag = std::get_if<bool*>(&option.value)) {
    if (text != "true" && text != "false") return "true or false";
    **flag = text == "true";
  } else {
    const auto& choices = option.choices;
    if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
      std::string all;
      for (const std::string& c : choices) all += (all.empty() ? "" : ", ") + c;
      return "one of: " + all + "; did you mean '" + nearest(text, choices) + "'?";
    }
    *std::get<std::string*>(option.value) = text;
  }
  return "";
}

}  // namespace

void set_option(const std::vector<Option>& options, const std::string& prefix,
                const std::string& name, const std::string& text) {
  std::vector<std::string> names;
  for (const Option& option : options) {
    names.push_back(option.name);
    if (option.name != name) continue;
    std::string wanted = assign(option, text);
    if (!wanted.empty()) throw InputError(prefix + name + ": '" + text + "' is not " + wanted);
    if (option.chosen) option.chosen();
    return;
  }
  throw InputError(prefix + name + ": no such setting; did you mean '" + prefix +
                   nearest(name, names) + "'?");
}

std::string option_text(const Option& option) {
  if (auto* number = std::get_if<double*>(&option.value)) return shortest(**number);
  if (auto* count = std::get_if<int64_t*>(&option.value)) return shortest(**count);
  if (auto* flag = std::get_if<bool*>(&option.value)) return **flag ? "true" : "false";
  return *std::get<std::string*>(option.value);
}

std::string option_kind(const Option& option) {
  if (std::holds_alternative<double*>(option.value)) return "number";
  if (std::holds_alternative<int64_t*>(option.value)) return "whole number";
  if (std::holds_alternative<bool*>(option.value)) return "true|false";
  std::string all;
  for (const std::string& c : option.choices) all += (all.empty() ? "" : "|") + c;
  return all.empty() ? "text" : all;
}

}  // namespace murmur
