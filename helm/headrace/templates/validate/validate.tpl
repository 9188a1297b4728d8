{{- /*
What cannot be installed, or would lose data, or would start without authentication, is refused here, all of it at
once. Each define below prints one sentence a line: what is wrong and what to do. Helm renders the deepest folders
first and the last names first, so this comes before any other template.
*/ -}}
{{- $said := list -}}
{{- range $part := list "names" "labels" "secrets" "store" "gateway" "scaling" "tls" "routes" "tracing" "models" "engines" "resources" -}}
{{- $said = concat $said (include (printf "headrace.validate.%s" $part) $ | splitList "\n") -}}
{{- end -}}
{{- include "headrace.refuse" ($said | compact) -}}
