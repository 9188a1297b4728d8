{{/*
gateway.toml. JSON is TOML for scalars and lists, so maps alone need care: each becomes a table, after the scalars.
*/}}
{{- define "headrace.gatewayConfig" -}}
{{- $computed := include "headrace.computedSettings" . | fromYaml -}}
{{- $settings := merge $computed (deepCopy .Values.gateway.settings) (include "headrace.advisedSettings" . | fromYaml) -}}
{{- range $name, $value := $settings -}}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ $name }} = {{ toRawJson $value }}
{{- end -}}
{{- end -}}
{{- range $name, $table := $settings -}}
{{- if kindIs "map" $table }}

[{{ $name }}]
{{- range $key, $value := $table }}
{{ toRawJson $key }} = {{ toRawJson $value }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The settings that the chart sets itself, as YAML. headrace.validateGateway refuses them in the values. */}}
{{- define "headrace.computedSettings" -}}
{{- $gateway := .Values.gateway -}}
{{- $drain := include "headrace.gatewayDrain" . | fromYaml -}}
listen: {{ printf "%s:50051" $gateway.bindAddress | quote }}
health_listen: {{ printf "%s:50052" $gateway.bindAddress | quote }}
metrics_listen: {{ printf "%s:9464" $gateway.bindAddress | quote }}
processes: {{ int64 $gateway.processes }}
drain_delay: {{ int64 $drain.delay }}
drain_grace: {{ int64 $drain.grace }}
{{- with .Values.tracing }}
{{- if .endpoint }}
otlp_endpoint: {{ .endpoint | quote }}
trace_ratio: {{ .sampleRatio }}
{{- end }}
{{- end }}
models:
  {{- range $name, $_ := .Values.models }}
  {{ $name | quote }}: {{ include "headrace.checkpoint" $name | quote }}
  {{- end }}
{{- if $gateway.tls.enabled }}
tls:
  certificate: /certs/gateway/tls.crt
  key: /certs/gateway/tls.key
  {{- if $gateway.tls.clientCa.enabled }}
  {{- $folder := ternary "clients" "gateway" (ne $gateway.tls.clientCa.existingSecret "") }}
  client_ca: {{ printf "/certs/%s/%s" $folder $gateway.tls.clientCa.key }}
  {{- end }}
{{- end }}
{{- end -}}

{{/*
The seconds of a gateway's end, as YAML: preStop (0 where Kubernetes has no sleep action, which is so below 1.30; the
gateway's own delay is then longer by as much), delay, grace, and total, the pod's whole grace period.
*/}}
{{- define "headrace.gatewayDrain" -}}
{{- $drain := .Values.gateway.drain -}}
{{- $sleeps := semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}
{{- $preStop := ternary (int64 $drain.preStopSeconds) 0 $sleeps -}}
{{- $delay := add (int64 $drain.delaySeconds) (ternary 0 (int64 $drain.preStopSeconds) $sleeps) -}}
{{- $sum := add $preStop $delay (int64 $drain.graceSeconds) (int64 $drain.marginSeconds) -}}
preStop: {{ $preStop }}
delay: {{ $delay }}
grace: {{ int64 $drain.graceSeconds }}
sum: {{ $sum }}
total: {{ .Values.gateway.terminationGracePeriodSeconds | int64 | default $sum }}
{{- end -}}

{{/* What goes with the models, where gateway.settings says nothing: turns are held while a model that sleeps wakes. */}}
{{- define "headrace.advisedSettings" -}}
{{- $root := . -}}
{{- $sleeps := false -}}
{{- range $name, $_ := .Values.models -}}
{{- $scaling := (include "headrace.model" (dict "root" $root "name" $name) | fromYaml).autoscaling -}}
{{- $sleeps = or $sleeps (and $scaling.enabled (eq (int64 $scaling.minReplicas) 0)) -}}
{{- end -}}
{{- if $sleeps -}}
hold: {{ min 3600 (include "headrace.longestTurn" $root | int64) }}
{{- end -}}
{{- end -}}
