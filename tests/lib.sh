# Shared by the scripts of this folder: where things are, and steps that are logged and timed. Sourced, not run.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SERVERS=${BACKUPD_SERVERS_DIR:-$REPO/target/servers}
LOGS=$REPO/target/logs
export BACKUPD_SERVERS_DIR=$SERVERS
mkdir -p "$SERVERS" "$LOGS"

say() { printf '[%s] %s\n' "$PART" "$*"; }

die() {
  printf '[%s] %s\n' "$PART" "$*" >&2
  exit 1
}

# run_step NAME WHAT COMMAND...: runs a command with its output in target/logs/NAME.log, prints how long it took,
# and the end of the log when it fails. The command's exit status is returned.
run_step() {
  local name=$1 what=$2 start=$SECONDS status=0
  shift 2
  printf '[%s] %s ... ' "$PART" "$what"
  "$@" >"$LOGS/$name.log" 2>&1 </dev/null || status=$?
  if [ "$status" -eq 0 ]; then
    printf '%d s\n' $((SECONDS - start))
  else
    printf 'failed after %d s (exit %d); the end of %s:\n' $((SECONDS - start)) "$status" "$LOGS/$name.log"
    tail -n 60 "$LOGS/$name.log"
  fi
  return "$status"
}
