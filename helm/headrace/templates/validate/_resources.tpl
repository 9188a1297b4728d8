{{/* A quantity of Kubernetes, or a size of Valkey (kb, mb, gb), as a number. */}}
{{- define "headrace.quantity" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 -}}
{{- $two := dict "kb" 10 "mb" 20 "gb" 30 "Ki" 10 "Mi" 20 "Gi" 30 "Ti" 40 "Pi" 50 "Ei" 60 -}}
{{- $size := get $units $unit | default 1 -}}
{{- range until (get $two $unit | default 0 | int) }}{{ $size = mulf $size 2 }}{{ end -}}
{{- printf "%.3f" (mulf (trimSuffix $unit $text | float64) $size) -}}
{{- end -}}

{{- define "headrace.validate.resources" -}}
{{- $values := .Values }}
{{- $all := dict "gateway" $values.gateway.resources "store.bundled" $values.store.bundled.resources "tests" $values.tests.resources }}
{{- range $name, $_ := $values.models }}
{{- $model := include "headrace.model" (dict "root" $ "name" $name) | fromYaml }}
{{- $facts := include "headrace.engineFacts" (dict "root" $ "model" $model) | fromYaml }}
{{- $_ := set $all (printf "models.%s.head" $name) $model.resources.head }}
{{- $_ := set $all (printf "models.%s.worker" $name) (include "headrace.workerResources" (dict "model" $model "facts" $facts) | fromYaml) }}
{{- end }}
{{- range $at, $resources := $all }}
{{- $limits := $resources.limits | default dict }}
{{- range $name, $asked := $resources.requests }}
{{- $limit := get $limits $name }}
{{- if and (hasKey $limits $name) (gt (include "headrace.quantity" $asked | float64) (include "headrace.quantity" $limit | float64)) }}
{{ $at }} asks for {{ $asked }} of {{ $name }} and has a limit of {{ $limit }}: raise the limit, or ask for less.
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
