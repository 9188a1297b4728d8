{{/* The least number of gateway pods. */}}
{{- define "headrace.gatewayPods" -}}
{{- $scaling := .Values.gateway.autoscaling -}}
{{- ternary $scaling.minReplicas .Values.gateway.replicas (or $scaling.enabled $scaling.keda.enabled) | int64 -}}
{{- end -}}

{{- define "headrace.gatewayServiceAccount" -}}
{{- $account := .Values.gateway.serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (include "headrace.componentName" (dict "root" . "component" "gateway")) -}}
{{- else -}}
{{- $account.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Secret with the serving certificate. */}}
{{- define "headrace.tlsSecret" -}}
{{- .Values.gateway.tls.existingSecret | default (include "headrace.componentName" (dict "root" . "component" "tls")) -}}
{{- end -}}

{{/* Environment of a process that has the gateway's settings and secrets. */}}
{{- define "headrace.gatewayEnv" -}}
- name: HEADRACE_CONFIG
  value: /etc/headrace/gateway.toml
{{ include "headrace.redisUrlEnv" . }}
{{ include "headrace.secretEnv" (dict "root" . "variable" "HEADRACE_KEY_PEPPER" "key" "keyPepper") }}
{{ include "headrace.linkTokenEnv" . }}
{{- if .Values.secrets.existingSecret.keys.masterKey }}
{{ include "headrace.secretEnv" (dict "root" . "variable" "HEADRACE_MASTER_KEY" "key" "masterKey") }}
{{- end }}
{{- with .Values.gateway.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "headrace.gatewayMounts" -}}
- name: config
  mountPath: /etc/headrace
  readOnly: true
- name: tmp
  mountPath: /tmp
- name: models
  mountPath: /models
{{- include "headrace.claimMounts" . }}
{{- with include "headrace.storeTlsMount" . }}
{{ . }}
{{- end }}
{{- if .Values.gateway.tls.enabled }}
- name: tls
  mountPath: /certs/gateway
  readOnly: true
{{- if .Values.gateway.tls.clientCa.existingSecret }}
- name: client-ca
  mountPath: /certs/clients
  readOnly: true
{{- end }}
{{- end }}
{{- with .Values.gateway.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Certificates are mounted as folders: a file mounted by subPath never changes, and these are renewed. */}}
{{- define "headrace.gatewayVolumes" -}}
- name: config
  configMap:
    name: {{ include "headrace.componentName" (dict "root" . "component" "gateway") }}
- name: tmp
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.gateway.tmpSize }}
- name: models
  emptyDir:
    sizeLimit: {{ .Values.gateway.modelsSize }}
{{- include "headrace.claimVolumes" . }}
{{- with include "headrace.storeTlsVolume" . }}
{{ . }}
{{- end }}
{{- if .Values.gateway.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "headrace.tlsSecret" . }}
    defaultMode: 0440
{{- with .Values.gateway.tls.clientCa.existingSecret }}
- name: client-ca
  secret:
    secretName: {{ . | quote }}
{{- end }}
{{- end }}
{{- with .Values.gateway.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A gRPC probe on the plaintext port. Call with (dict "root" $ "probe" "liveness" "service" "liveness"). */}}
{{- define "headrace.probe" -}}
{{- $probe := index .root.Values.gateway.probes .probe -}}
grpc:
  port: 50052
  service: {{ .service }}
periodSeconds: {{ $probe.periodSeconds }}
failureThreshold: {{ $probe.failureThreshold }}
timeoutSeconds: {{ $probe.timeoutSeconds }}
{{- end -}}
