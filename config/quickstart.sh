#!/usr/bin/env bash
# Order lines of an online shop through two plugins on the embedded broker:
#   order-lines ─▶ enrich ─▶ orders, large-orders ─▶ alerts ─▶ order-alerts
# `make run` builds what it needs and calls it. It starts from an empty store each time.
set -euo pipefail
cd "$(dirname "$0")/.."

millstream=${MILLSTREAM_BIN:-target/debug/millstream}
config=config/quickstart.toml
store=target/quickstart
show=3

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n%s\n' "$*"; }
fail() { printf 'make run: %s\n' "$*" >&2; exit 1; }

[ -x "$millstream" ] || fail "there is no $millstream; run \`make build\`"
[ -f "$config" ] || fail "there is no $config"
# The store is removed below: it must be the quickstart's own.
grep -q "$store" "$config" || fail "$config does not keep its data in $store"
sample=$(find plugins/enrich/data -name '*.jsonl' 2>/dev/null | sort | head -n 1)
[ -n "$sample" ] || fail "there is no sample in plugins/enrich/data"
lines=$(wc -l <"$sample")
[ "$lines" -gt 0 ] || fail "$sample is empty"

rm -rf "$store"
mkdir -p "$store"
"$millstream" validate "$config" >/dev/null

say "1. $lines order lines of an online shop go into the topic order-lines"
echo "   from $sample"
"$millstream" produce --config "$config" order-lines --file "$sample" >/dev/null

say "2. The plugins run until every event is processed"
started=$(date +%s%N)
"$millstream" run "$config" --until-idle
took=$(( ($(date +%s%N) - started) / 1000000 ))

say "3. What came in and what came out"
"$millstream" topics --config "$config"
printf '\n%s order lines in %d.%03d s, starting and stopping included: %d events a second (a debug build)\n' \
  "$lines" $((took / 1000)) $((took % 1000)) $((lines * 1000 / (took > 0 ? took : 1)))

first() { # the first events of a topic; none at all is a failure
  local events
  events=$("$millstream" consume --config "$config" "$1" -n $show)
  [ -n "$events" ] || fail "nothing was derived into $1"
  printf '%s\n' "$events"
}
say "An order line as it came in"
"$millstream" consume --config "$config" order-lines -n 1
say "Enriched (topic orders)"
first orders
say "Alerts, derived from large orders (topic order-alerts)"
first order-alerts

say "Try next"
cat <<TEXT
  export PATH="$PWD/$(dirname "$millstream"):\$PATH"
  millstream consume --config $config order-lines.dlq -n 3    what enrich rejected, and why (headers: --json)
  millstream run $config                       runs until Ctrl-C; meanwhile, in another terminal:
    curl http://127.0.0.1:9464/metrics                        metrics for Prometheus
    millstream produce --config $config order-lines           type an order line, press Enter, then Ctrl-D
    millstream lag --config $config                           where each consumer stands
  edit plugins/enrich/src/lib.rs, then make run               and see its events change
TEXT
