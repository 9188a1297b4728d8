{{- define "headrace.validate.secrets" -}}
{{- $secrets := .Values.secrets }}
{{- if and $secrets.generate $secrets.existingSecret.name }}
secrets.generate and secrets.existingSecret.name exclude each other: keep one of them.
{{- end }}
{{- if not (or $secrets.generate $secrets.existingSecret.name) }}
There are no secrets, and nothing starts without authentication: name a Secret in secrets.existingSecret.name, or set secrets.generate for a trial.
{{- end }}
{{- range $name := list "keyPepper" "linkToken" "rayToken" }}
{{- if not (index $secrets.existingSecret.keys $name) }}
secrets.existingSecret.keys.{{ $name }} is empty: name the key of the Secret that holds it.
{{- end }}
{{- end }}
{{- if ne $secrets.existingSecret.keys.rayToken "auth_token" }}
secrets.existingSecret.keys.rayToken is {{ $secrets.existingSecret.keys.rayToken | quote }}: KubeRay reads the key auth_token only.
{{- end }}
{{- end -}}

{{- define "headrace.validate.store" -}}
{{- if eq .Values.store.mode "bundled" }}
{{- include "headrace.validate.bundledStore" . }}
{{- else }}
{{- include "headrace.validate.externalStore" . }}
{{- end }}
{{- end -}}

{{- define "headrace.validate.bundledStore" -}}
{{- $bundled := .Values.store.bundled }}
{{- $scaling := .Values.gateway.autoscaling }}
{{- if not $bundled.persistence.enabled }}
{{- if not $bundled.acceptDataLoss }}
store.bundled.persistence is off, so keys, sessions and journals go with the pod: turn it on, or say store.bundled.acceptDataLoss for a trial.
{{- end }}
{{- if .Values.store.gcsFaultTolerance }}
store.gcsFaultTolerance needs a store that keeps its data: turn store.bundled.persistence on, or store.gcsFaultTolerance off.
{{- end }}
{{- end }}
{{- if or $scaling.enabled $scaling.keda.enabled }}
store.mode is bundled, one Valkey pod for trials, under gateways that scale: use store.mode external, or turn gateway.autoscaling off.
{{- end }}
{{- $limit := ($bundled.resources.limits | default dict).memory }}
{{- if and $limit (ge (include "headrace.quantity" $bundled.maxmemory | float64) (include "headrace.quantity" $limit | float64)) }}
store.bundled.maxmemory is {{ $bundled.maxmemory }}, not below the memory limit of {{ $limit }}: the kernel would end Valkey before it refuses a write; set about three quarters of the limit.
{{- end }}
{{- if not .Values.secrets.existingSecret.keys.redisPassword }}
secrets.existingSecret.keys.redisPassword is empty, and the bundled store does not start without a password: name its key.
{{- end }}
{{- end -}}

{{- define "headrace.validate.externalStore" -}}
{{- $external := .Values.store.external }}
{{- if and (eq $external.kind "sentinel") .Values.networkPolicy.enabled (lt (len ($external.ports | uniq)) 2) }}
store.external.kind is sentinel, but store.external.ports has one port: name those of the servers and of the sentinels, mostly [6379, 26379].
{{- end }}
{{- if and .Values.secrets.generate (not $external.urlSecret.name) }}
store.mode is external, whose address cannot be drawn: name the Secret that holds it in store.external.urlSecret.name, or set store.mode to bundled for a trial.
{{- end }}
{{- if .Values.store.gcsFaultTolerance }}
{{- if not $external.gcs.address }}
store.gcsFaultTolerance needs store.external.gcs.address, host:port of a server or a sentinel: set it, or turn store.gcsFaultTolerance off.
{{- else if or (contains "," $external.gcs.address) (contains "+" $external.gcs.address) }}
store.external.gcs.address names a cluster or several hosts, which cannot keep Ray's state: give host:port of one server or one sentinel.
{{- else if not (regexMatch "^(rediss?://)?[A-Za-z0-9][A-Za-z0-9.-]*:[1-9][0-9]{0,4}$" $external.gcs.address) }}
store.external.gcs.address is {{ $external.gcs.address | quote }}: give host:port, the port included and nothing behind it.
{{- end }}
{{- if and $external.gcs.address (not $external.gcs.passwordSecret.name) }}
store.external.gcs.passwordSecret.name is empty, and Ray's state would lie in a store without a password: name the Secret that holds it.
{{- end }}
{{- end }}
{{- end -}}
