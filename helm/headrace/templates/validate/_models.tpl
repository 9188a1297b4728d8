{{- define "headrace.validate.models" -}}
{{- $root := . }}
{{- if not .Values.models }}
There are no models: name one under `models`, or install with one of the chart's values-*.yaml.
{{- end }}
{{- $taken := dict }}
{{- range $name, $_ := .Values.models }}
{{- if not (regexMatch "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$" $name) }}
models has the name {{ $name | quote }}: use at most 63 letters, digits, ".", "_" and "-", and begin and end with a letter or digit.
{{- else }}
{{- if has (include "headrace.slug" $name) (list "gateway" "store" "secrets" "tls" "test" "rules" "engine" "ray-autoscaler") }}
models has the name {{ $name | quote }}, which an object of the chart has already: give the model another.
{{- end }}
{{- $service := include "headrace.modelName" (dict "root" $root "name" $name) }}
{{- if hasKey $taken $service }}
models has {{ get $taken $service | quote }} and {{ $name | quote }}, which differ in case or punctuation only: rename one of them.
{{- end }}
{{- $_ := set $taken $service $name }}
{{- include "headrace.validate.model" (dict "name" $name "model" (include "headrace.model" (dict "root" $root "name" $name) | fromYaml)) }}
{{- end }}
{{- end }}
{{- if and .Values.tests.model (not (hasKey .Values.models .Values.tests.model)) }}
tests.model is {{ .Values.tests.model | quote }}, which is not one of `models`.
{{- end }}
{{- end -}}

{{- define "headrace.validate.model" -}}
{{- $checkpoint := .model.checkpoint }}
{{- $at := printf "models.%s" .name }}
{{- if not $checkpoint.source }}
{{ $at }}.checkpoint.source is empty: say where the checkpoint comes from, pvc, hub, made or node.
{{- end }}
{{- if and (eq $checkpoint.source "pvc") (not $checkpoint.claim) }}
{{ $at }}.checkpoint.claim is empty: name the PersistentVolumeClaim that has the checkpoint.
{{- end }}
{{- if and (eq $checkpoint.source "node") (not (regexMatch "^(/[^/]+)+$" $checkpoint.path)) }}
{{ $at }}.checkpoint.path has to be the absolute path of the checkpoint's folder on the node, without a slash at its end.
{{- else if and (eq $checkpoint.source "node") $checkpoint.repository (eq (dir $checkpoint.path) "/") }}
{{ $at }}.checkpoint.path is {{ $checkpoint.path }}, to fetch into which would take the node's root: name a folder in a folder.
{{- end }}
{{- if regexMatch "(^|/)[.]{1,2}(/|$)" $checkpoint.path }}
{{ $at }}.checkpoint.path is {{ $checkpoint.path | quote }}: write it without the parts "." and "..".
{{- end }}
{{- if and (eq $checkpoint.source "made") (eq .model.engine "vllm") (int64 .model.gpu.perReplica) }}
{{ $at }}.checkpoint.source is made, a small test model for CPUs, but gpu.perReplica is {{ int64 .model.gpu.perReplica }}: name a checkpoint, or set perReplica to 0.
{{- end }}
{{- $scaling := .model.autoscaling }}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}
{{ $at }}.autoscaling.minReplicas is {{ $scaling.minReplicas }} and maxReplicas {{ $scaling.maxReplicas }}: raise maxReplicas.
{{- end }}
{{- end -}}
