#!/bin/sh
# In a virtual machine (debian.sh): runs the commands of README.md's first half hour, one by one as they are written, then
# the looks of every page of RUNBOOK.md.
set -eu
export TERM=dumb SYSTEMD_COLORS=0 SYSTEMD_URLIFY=0 DEBIAN_FRONTEND=noninteractive

# The `sh` blocks of a page from the first line that matches to the next section of that level.
blocks() {
    awk -v from="$2" '
        $0 == from { on = 1; next } on && /^## / && from ~ /^## / { exit }
        on && /^```sh$/ { code = 1; next } /^```$/ { code = 0 } on && code' "$1"
}

blocks README.md '## The first half hour' > commands
[ "$(wc -l < commands)" -gt 30 ]
while IFS= read -r command; do
    printf '\n# %s\n' "$command"
    # Through a pipe: nothing is a terminal.
    { (eval "$command") </dev/null 2>&1 || echo "$command" > failed; } | cat
    [ ! -e failed ]
done < commands

systemctl start kcp-gateway
blocks RUNBOOK.md '# Runbook' > looks
[ "$(grep -c curl looks)" -gt 5 ]
printf '\n# the looks of RUNBOOK.md\n'
sh -e looks > looked 2>&1 || { cat looked; exit 1; }
if grep -E 'not found|invalid option|parse error' looked; then exit 1; fi
echo "$(wc -l < looks) lines ran and printed $(wc -l < looked)"
