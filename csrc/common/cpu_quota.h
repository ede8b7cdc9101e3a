// The CPU time that a container may use, which is often less than its processors give.
#pragma once

#include <optional>
#include <string>

namespace cgnrt {

// The CPUs that the cgroups of this process allow it in all (cpu.max, or cpu.cfs_quota_us of cgroup v1),
// rounded up, at least 1: the smallest of its own cgroup's and of every one around it. Null: no quota, or no
// cgroups.
//
// `root` comes before every path that is read; it is empty except for tests.
std::optional<int> cpu_quota(const std::string& root);

}  // namespace cgnrt
