#!/usr/bin/env bash
# Order lines of an online shop through two plugins on the embedded broker:
#   order-lines ─▶ enrich ─▶ orders, large-orders
#                              └▶ alerts ─▶ order-alerts
# `make run` builds what it needs and calls it. It starts from an empty store each time.
set -euo pipefail
cd "$(dirname "$0")/.."

millstream=${MILLSTREAM_BIN:-target/debug/millstream}
config=config/quickstart.toml
store=target/quickstart
show=3

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
fail() { printf 'make run: %s\n' "$*" >&2; exit 1; }

[ -x "$millstream" ] || fail "there is no $millstream; run \`make build\`"
[ -f "$config" ] || fail "there is no $config"
# The store is removed below: it must be the quickstart's own.
grep -q "$store" "$config" || fail "$config does not keep its data in $store"
sample=$(find plugins/enrich/data -name '*.jsonl' 2>/dev/null | sort | head -n 1)
[ -n "$sample" ] || fail "there is no sample in plugins/enrich/data"
lines=$(wc -l <"$sample")
[ "$lines" -gt 0 ] || fail "$sample is empty"

export MILLSTREAM_CONFIG=$config
rm -rf "$store"
mkdir -p "$store"
"$millstream" validate >/dev/null

say "1. $lines order lines of an online shop go into the topic order-lines"
printf 'from %s\n' "$sample"
"$millstream" produce order-lines --file "$sample" >/dev/null

say "2. Two plugins work until every event is processed"
"$millstream" run --until-idle --log-level warn

say "3. What came in and what came out"
"$millstream" topics | awk '
  NR == 1 { next }
  !($1 in events) { order[++topics] = $1 }
  { events[$1] += $NF }
  END { for (i = 1; i <= topics; i++) printf "%-16s %6d events\n", order[i], events[order[i]] }'

first() { # the first events of a topic; none at all is a failure
  local events
  events=$("$millstream" consume "$1" -n $show)
  [ -n "$events" ] || fail "nothing was written to $1"
  printf '%s\n' "$events"
}
say "Order lines as they came in (order-lines)"
first order-lines
say "Enriched by plugins/enrich (orders)"
first orders
say "Alerts that plugins/alerts derives from them (order-alerts)"
first order-alerts
say "Rejected: no order lines (order-lines.dlq)"
first order-lines.dlq

say "Try next"
cat <<TEXT
  export PATH="\$PWD/$(dirname "$millstream"):\$PATH" MILLSTREAM_CONFIG=$config

  millstream run                           until Ctrl-C; in another terminal meanwhile:
    curl http://127.0.0.1:9464/metrics       what Prometheus sees
    millstream produce order-lines           type an order line, Enter, Ctrl-D
    millstream consume orders --follow       watch what comes out
    millstream lag                           where each consumer stands
  millstream consume order-lines.dlq --json   why events were rejected, in their headers

  edit plugins/enrich/src/lib.rs and run make run again: its events change
TEXT
