#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Fails when the command table, the help and the man page disagree.  The help
# and "-j help" are made from the same tables that parse; so what is compared
# is the man page with "-j help", and that each command parses its own help.
#
# usage: test-help.sh [KPOPCTL]

ctl=${1:-kpopctl}
man=$(dirname "$0")/kpopctl.rst
bad=0

check()
{
	if [ "$2" = "$3" ]; then
		echo "ok: $1"
	else
		echo "FAILED: $1"
		echo "  kpopctl:  " $2
		echo "  man page: " $3
		bad=1
	fi
}

json=$("$ctl" -j help) || exit 1
commands=$(echo "$json" | jq -r '.commands[].name' | sort)
[ -n "$commands" ] || { echo "FAILED: kpopctl -j help lists no command"; exit 1; }

# A section "attach OBJ" between COMMANDS and OPTIONS is a command.
check "commands and their arguments" \
	"$(echo "$json" | jq -r '.commands[] | .name + (if .argument then " " + .argument else "" end)' | sort)" \
	"$(sed -n '/^COMMANDS$/,/^OPTIONS$/p' "$man" | grep -B1 '^----*$' | grep '^[a-z]' | sort)"

# An option is defined at the start of a line of OPTIONS.
check "options, short and long, and their values" \
	"$(echo "$json" | jq -r '.commands[].options[] |
		(if .short then "-" + .short + ", " else "" end) + "--" + .name +
		(if .value then " " + .value else "" end)' | sort -u)" \
	"$(sed -n '/^OPTIONS$/,/^EXIT STATUS$/p' "$man" | grep '^-[-a-z]' | grep -v '^---*$' | sort -u)"

check "exit status" \
	"$(echo "$json" | jq -r '.exit_status[] | "\(.status) \(.kind): \(.help)"')" \
	"$(sed -n '/^EXIT STATUS$/,/^FILES$/p' "$man" | sed -n 's/^| //p')"

for command in $commands; do
	# Which options a command takes stands in its section of the man page.
	check "options of $command" \
		"$(echo "$json" | jq -r ".commands[] | select(.name == \"$command\") |
			.options[].name" | grep -vx 'pid\|name\|vm-id\|fd\|json\|debug\|help' | sort | xargs)" \
		"$(sed -n '/^COMMANDS$/,/^OPTIONS$/p' "$man" |
			awk -v c="$command" '/^----*$/ { here = last == c; next }
				/^[a-z]/ { split($0, w, " "); last = w[1] } here' |
			grep -o -- '\*\*--[a-z-]*\*\*' | tr -d '*' | sed 's/^--//' |
			sort -u | xargs)"
	text=$("$ctl" help "$command") && [ "$text" = "$("$ctl" "$command" --help)" ]
	check "help $command, $command --help" "$?" 0
	"$ctl" help | grep -q "^  $command "
	check "help lists $command" "$?" 0
done

exit $bad
