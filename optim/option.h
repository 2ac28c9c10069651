// optim/option.h - a setting with a name, listed once: flags, configuration files, help,
// documentation and checks of range and kind all follow from it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

namespace murmur {

struct Option {
  std::string name;
  std::variant<double*, int64_t*, bool*, std::string*> value;
  std::string summary;
  double low = -1e18, high = 1e18;        // numbers outside are refused
  std::vector<std::string> choices = {};  // of a text; empty: any
  // When given: it is called after the setting was assigned. For settings that stand for a set of
  // others, as "form" does; they are assigned before the others.
  std::function<void()> chosen = {};
};

// Sets the option `prefix + name` from text. InputError for an unknown name (naming the nearest
// one), a value of the wrong kind, out of range, or not among the choices.
void set_option(const std::vector<Option>& options, const std::string& prefix,
                const std::string& name, const std::string& text);

std::string option_text(const Option& option);  // the current value, exact
// "number", "whole number", "true|false", "a|b|c", "text"
std::string option_kind(const Option& option);

}  // namespace murmur
