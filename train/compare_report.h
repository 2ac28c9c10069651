// train/compare_report.h - a comparison as tables for the terminal and Markdown, JSON, and a PNG.
#pragma once

#include <string>

#include "train/compare.h"

namespace murmur {

std::string to_text(const Comparison& comparison);
std::string to_markdown(const Comparison& comparison);
std::string to_json(const Comparison& comparison);

// Prints the tables; writes compare.md, compare.json and compare.png into the folder of the race,
// and the JSON once more to `json` unless that is empty.
void report(const Comparison& comparison, const std::string& json);

}  // namespace murmur
