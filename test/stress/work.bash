# Arrays, string building, substitution, functions, subshells and pipes; prints digests.
set -euo pipefail

declare -A seen
declare -a list
state=1
next() { state=$(((state * 1103515245 + 12345) % 2147483648)); }

for ((i = 0; i < 20000; i++)); do
  next
  key="k$((state % 5000))"
  seen[$key]="${seen[$key]:-}$i,"
  list+=("$key:$state")
done
for key in "${!seen[@]}"; do echo "$key=${seen[$key]}"; done | sort | sha256sum
printf '%s\n' "${list[@]}" | sha256sum

long=""
for ((i = 0; i < 3000; i++)); do
  long+="$i-${list[i]}-"
  ((i % 500)) || long="${long//k1/K-one-}"
done
echo "${#long}"
echo "${long^^}" | sha256sum

for ((i = 0; i < 200; i++)); do
  copy=("${list[@]:i:50}")
  unset "list[i]"
  word=$(echo "${copy[*]}" | tr k q)
  [[ $word =~ q([0-9]+):([0-9]+) ]] && echo "${BASH_REMATCH[1]}"
done | sha256sum

fib() {
  if (($1 < 2)); then
    result=$1
    return
  fi
  fib $(($1 - 1))
  local a=$result
  fib $(($1 - 2))
  result=$((a + result))
}
fib 17
echo "$result"
mapfile -t lines < <(seq 1 60000)
echo "${#lines[@]} ${lines[59999]}"
