#!/bin/sh
# stint work orders -- sh examples/pools/child.sh
# No JSON parser is needed: "type" comes first, "body" last, and a body can be passed on in the form that it has.
while IFS= read -r line <&3; do
  case $line in
  '{"type":"work"'*',"body":"'*)
    id=${line#*'"id":"'} && id=${id%%'"'*}
    body=${line#*',"body":"'} && body=${body%'"}'}
    printf '{"type":"done","id":"%s","body":"Hello, %s"}\n' "$id" "$body" >&4 ;;
  '{"type":"work"'*)
    printf '{"type":"failed","message":"the body is no text","retry":false}\n' >&4 ;;
  '{"type":"stop"'*) exit 0 ;;
  esac
done
