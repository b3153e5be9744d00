# The container engines' default profile, resolved for a process without capabilities on amd64 or arm64, plus io_uring.
#
#   jq -f seccomp.jq default.json > seccomp.json
#
# default.json is the one in Docker's sources (profiles/seccomp). Its `includes` and `excludes` are an extension that
# Docker, Podman and CRI-O evaluate; containerd reads the OCI form only and would allow what is meant for capabilities.
def applies: (.includes.caps // []) == []
  and (.includes.arches // ["amd64"] | any(. == "amd64" or . == "arm64"))
  and (.excludes.arches // [] | any(. == "amd64" or . == "arm64") | not)
  and .action != null;
# A socket of family 40 (vsock) leaves the container for the hypervisor; newer defaults refuse it, too.
def without_vsock: if .names | index("socket") then .names -= ["socket"] else . end;
{
  defaultAction,
  defaultErrnoRet: (.defaultErrnoRet // 1),
  architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
  syscalls: (
    [.syscalls[] | select(applies) | without_vsock
      | {names: (.names | sort), action} + with_entries(select((.key == "args" or .key == "errnoRet") and .value != null))
      | if .args == [] then del(.args) else . end]
    | map(select(.args == null and .action == "SCMP_ACT_ALLOW")) as $plain
    | [{names: ([$plain[].names[]] + ["io_uring_enter", "io_uring_register", "io_uring_setup"] | unique), action: "SCMP_ACT_ALLOW"}]
      + (. - $plain)
      + [{names: ["socket"], action: "SCMP_ACT_ALLOW", args: [{index: 0, value: 40, op: "SCMP_CMP_NE"}]}]
  )
}
