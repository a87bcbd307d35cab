# Shared by the scripts that run an S3 server in a folder DIR: its processes, which are known by a word of their command line (MARK),
# its ports, its end. Sourced behind lib.sh, by a script that has functions
# `usage`, `installed` (or it says how), `prepare` (what all regions share, and their keys, into env.new) and `start_region REGION SUFFIX`.

# daemon NAME COMMAND...
daemon() {
  local name=$1
  shift
  setsid "$@" >"$DIR/$name.out" 2>&1 </dev/null &
  echo $! >"$DIR/$name.pid"
}

# Ports below the range that outgoing connections are given.
free_port() {
  local port
  while :; do
    port=$((7700 + RANDOM % 2000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      case " ${taken[*]-} " in *" $port "*) ;; *) break ;; esac
    fi
  done
  taken+=("$port")
  REPLY=$port
}

# wait_for WHAT COMMAND...
wait_for() {
  local what=$1 end=$((SECONDS + WAIT_SECONDS))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then
      tail -n 20 "$DIR"/*.out >&2 || true
      stop
      die "$what did not come up in $WAIT_SECONDS s; logs were in $DIR"
    fi
    sleep 0.2
  done
}

answers() { curl -s -o /dev/null "http://127.0.0.1:$1/"; }

# is_up COUNT: whether servers for so many regions were started here and the first one answers.
is_up() {
  [ -e "$DIR/env" ] && [ "$(grep -c _ENDPOINT "$DIR/env")" -ge "$1" ] &&
    answers "$(sed -n 's|.*ENDPOINT=http://127.0.0.1:\([0-9]*\) .*|\1|p' "$DIR/env" | head -n 1)"
}

# Kills by the recorded ids, and only what really is a server of this folder. Radosgw takes long to leave when asked,
# and the data is thrown away, so nobody is asked.
stop() {
  local file pid
  for file in "$DIR"/*.pid; do
    [ -e "$file" ] || continue
    pid=$(cat "$file")
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$DIR/$MARK"; then
      kill -9 "$pid" 2>/dev/null || true
      while kill -0 "$pid" 2>/dev/null && [ "$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat" 2>/dev/null)" != Z ]; do sleep 0.05; done
    fi
  done
  rm -rf "$DIR"
}

# The marker goes with the folder, so the watch of an earlier run never stops the servers of a later one.
watch() {
  local marker=$DIR/watched-by-$1
  touch "$marker"
  setsid bash -c 'while kill -0 "$1" 2>/dev/null && [ -e "$2" ]; do sleep 1; done
    if [ -e "$2" ]; then exec "$3" stop "$4"; fi' - \
    "$1" "$marker" "$REPO/tests/servers/$PART.sh" "$DIR" >/dev/null 2>&1 </dev/null &
}

start() {
  local suffix='' region watched='' taken=()
  if [ "${1-}" = --while ]; then watched=$2; shift 2; fi
  ! is_up $(($# > 0 ? $# : 1)) || return 0
  installed
  [ ! -d "$DIR" ] || { DIR=$(realpath "$DIR") && stop; }
  mkdir -p "$DIR"
  DIR=$(realpath "$DIR")
  [ -z "$watched" ] || watch "$watched"
  prepare
  for region in "${@:-us-east-1}"; do
    start_region "$region" "$suffix"
    suffix=_2
  done
  # its presence says that all of it is up
  mv "$DIR/env.new" "$DIR/env"
}

# dispatch ARGUMENTS...: does what ACTION says.
dispatch() {
  case $ACTION in
    start)
      local log
      log=$(mktemp "$LOGS/$PART-XXXXXX.log")
      # in a process of its own, because the shell does not stop at errors inside a command with `||` behind it
      if ! "$0" run "$DIR" "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        die "not started; the whole log is $log"
      fi
      mv "$log" "$LOGS/$PART.log" ;;
    run) start "$@" ;;
    stop) [ ! -d "$DIR" ] || { DIR=$(realpath "$DIR") && stop; } ;;
    env) cat "$DIR/env" 2>/dev/null || die "not running in $DIR: $PART.sh start $DIR" ;;
    *) usage ;;
  esac
}
