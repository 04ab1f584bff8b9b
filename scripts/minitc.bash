# Completion of the command minitc for bash. The options are those that its --help names.

_minitc_options() {
  minitc "$1" --help 2>/dev/null | grep -oE -- '(^|[ [])--?[a-z][a-z-]*' | tr -d ' [' | sort -u
}

# Those of them that a value follows: in the usage they stand in brackets with it.
_minitc_valued() {
  minitc "$1" --help 2>/dev/null | grep -oE -- '\[--?[a-z-]+ [^]]+\]' | sed 's/^\[//; s/ .*//'
}

# What follows are names of files: bash quotes the blanks in them.
_minitc_files() {
  compopt -o filenames 2>/dev/null || : # a test calls without readline
}

_minitc() {
  local current=${COMP_WORDS[COMP_CWORD]} part=${COMP_WORDS[1]} i valued
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W 'run check compare stats top report --help --version' -- "$current")
    return
  fi
  case $part in
    run | check | compare) ;;
    stats | top | report)
      _minitc_files
      mapfile -t COMPREPLY < <(compgen -f -- "$current"
        [[ $current == -* ]] && compgen -W "$(_minitc_options "$part")" -- "$current"
        [[ $current =~ ^[0-9]+$ ]] && cd /proc && compgen -G "$current*")
      return ;;
    *) return ;;
  esac

  # Where the user's own command begins: behind --, or at the first word that is no option.
  valued=" $(_minitc_valued "$part" | tr '\n' ' ')"
  for ((i = 2; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --) ((i++)); break ;;
      -*) [[ $valued == *" ${COMP_WORDS[i]} "* ]] && ((i++)) ;;
      *) break ;;
    esac
  done
  if [ "$i" -gt "$COMP_CWORD" ]; then # a value
    case ${COMP_WORDS[COMP_CWORD - 1]} in
      --lib | --json | --svg | --stdin | --stats-file)
        _minitc_files
        mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
      --on-bad-free) mapfile -t COMPREPLY < <(compgen -W 'abort ignore' -- "$current") ;;
      --release) mapfile -t COMPREPLY < <(compgen -W 'dontneed free' -- "$current") ;;
      --hugepages) mapfile -t COMPREPLY < <(compgen -W '0 1 auto' -- "$current") ;;
      --with)
        local before=
        [[ $current == *,* ]] && before=${current%,*},
        mapfile -t COMPREPLY < <(compgen -P "$before" -W 'glibc jemalloc tcmalloc mimalloc' \
          -- "${current##*,}") ;;
    esac
  elif [ "$i" -eq "$COMP_CWORD" ] && [[ $current == -* && ${COMP_WORDS[i - 1]} != -- ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(_minitc_options "$part")" -- "$current")
  elif [ "$i" -eq "$COMP_CWORD" ]; then
    _minitc_files
    mapfile -t COMPREPLY < <(compgen -c -- "$current"; compgen -d -- "$current")
    if [[ $part == check && $current =~ ^[0-9]+$ ]]; then
      mapfile -t COMPREPLY < <(cd /proc && compgen -G "$current*")
    fi
  elif declare -F _command_offset >/dev/null; then
    _command_offset "$i"
  else
    _minitc_files
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}

complete -F _minitc minitc
