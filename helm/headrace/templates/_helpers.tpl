{{/*
Names. A full name has at most 40 characters, so that what is appended fits into 63, and RayServices into 47.
*/}}
{{- define "headrace.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- include "headrace.short" (dict "text" $full "max" 40) -}}
{{- end -}}
{{- end -}}

{{/*
Text of at most `max` characters: what does not fit gives way to a digest, so that two names never become one.
*/}}
{{- define "headrace.short" -}}
{{- if gt (len .text) (int .max) -}}
{{- printf "%s-%s" (.text | trunc (sub .max 7 | int) | trimSuffix "-") (.text | sha256sum | trunc 6) -}}
{{- else -}}
{{- .text -}}
{{- end -}}
{{- end -}}

{{/* Name of a part's objects. Call with (dict "root" $ "component" "gateway"). */}}
{{- define "headrace.componentName" -}}
{{- printf "%s-%s" (include "headrace.fullname" .root) .component -}}
{{- end -}}

{{/* A model's name as objects have it: a-z, 0-9 and single hyphens. */}}
{{- define "headrace.slug" -}}
{{- regexReplaceAll "[^a-z0-9]+" (lower .) "-" | trimAll "-" -}}
{{- end -}}

{{/* Name of a model's RayService: DNS-1035, at most 47. Call with (dict "root" $ "name" NAME). */}}
{{- define "headrace.modelName" -}}
{{- $text := printf "%s-%s" (include "headrace.fullname" .root) (include "headrace.slug" .name) -}}
{{- include "headrace.short" (dict "text" $text "max" 47) -}}
{{- end -}}

{{/* Folder of a model's checkpoint in every pod that reads it. Call with a model's name. */}}
{{- define "headrace.checkpoint" -}}
{{- printf "/models/%s" . -}}
{{- end -}}

{{/*
A model's entry, merged over modelDefaults, as YAML: read it with
  {{- $model := include "headrace.model" (dict "root" $ "name" $name) | fromYaml }}
Numbers come out as floats: print them with `int64`, or through toYaml and toJson.
*/}}
{{- define "headrace.model" -}}
{{- $entry := index .root.Values.models .name | default dict -}}
{{- mustMergeOverwrite (deepCopy .root.Values.modelDefaults) (deepCopy $entry) | toYaml -}}
{{- end -}}

{{/*
Labels that select a part's pods and never change. Call with (dict "root" $ "component" "gateway"). Engines have no name
among them: KubeRay's Service of a RayService's head selects app.kubernetes.io/name: kuberay, which it sets itself, and a
name of ours in the pods would empty that Service.
*/}}
{{- define "headrace.selector" -}}
app.kubernetes.io/part-of: headrace
{{ if ne .component "engine" -}}
app.kubernetes.io/name: headrace
{{ end -}}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- with .model }}
headrace.dev/model: {{ . | quote }}
{{- end }}
{{- end -}}

{{/*
Labels of an object. Not for pod templates of Ray: those take headrace.selector, since any change there starts a
second cluster. Call with (dict "root" $ "component" "gateway"), and "model" NAME where it is one's.
*/}}
{{- define "headrace.labels" -}}
{{ include "headrace.selector" . }}
{{- if eq .component "engine" }}
app.kubernetes.io/name: headrace
{{- end }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Metadata of an object, without the key `metadata`. Call with (dict "root" $ "component" "gateway" "name" NAME), and
"annotations", "labels" and "model" where there are some.
*/}}
{{- define "headrace.metadata" -}}
name: {{ .name | quote }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "headrace.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (deepCopy (.annotations | default dict)) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image. Call with (dict "root" $ "image" "gateway"). */}}
{{- define "headrace.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- $repository := trimPrefix "/" (printf "%s/%s" (trimSuffix "/" .root.Values.images.registry) $image.repository) -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* `image` and `imagePullPolicy` of a container. Call with (dict "root" $ "image" "gateway"). */}}
{{- define "headrace.containerImage" -}}
image: {{ include "headrace.image" . | quote }}
imagePullPolicy: {{ (index .root.Values.images .image).pullPolicy }}
{{- end -}}

{{- define "headrace.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Names of the Secret with all keys, and of its keys: what the values name, or what the chart draws. */}}
{{- define "headrace.secretName" -}}
{{- if .Values.secrets.existingSecret.name -}}
{{- .Values.secrets.existingSecret.name -}}
{{- else -}}
{{- include "headrace.componentName" (dict "root" . "component" "secrets") -}}
{{- end -}}
{{- end -}}

{{/* One variable from that Secret. Call with (dict "root" $ "variable" "HEADRACE_LINK_TOKEN" "key" "linkToken"). */}}
{{- define "headrace.secretEnv" -}}
- name: {{ .variable }}
  valueFrom:
    secretKeyRef:
      name: {{ include "headrace.secretName" .root | quote }}
      key: {{ index .root.Values.secrets.existingSecret.keys .key | quote }}
{{- end -}}

{{- define "headrace.linkTokenEnv" -}}
{{- include "headrace.secretEnv" (dict "root" . "variable" "HEADRACE_LINK_TOKEN" "key" "linkToken") -}}
{{- end -}}

{{/*
HEADRACE_REDIS_URL, as a list of variables, for gateways and `headrace keys`. The bundled store's address is made from
the password in the pod: the kubelet fills in $(STORE_PASSWORD), so no object holds both.
*/}}
{{- define "headrace.redisUrlEnv" -}}
{{- if eq .Values.store.mode "bundled" -}}
{{ include "headrace.secretEnv" (dict "root" . "variable" "STORE_PASSWORD" "key" "redisPassword") }}
- name: HEADRACE_REDIS_URL
  value: redis://:$(STORE_PASSWORD)@{{ include "headrace.storeHost" . }}:6379/0
{{- else if .Values.store.external.urlSecret.name -}}
{{ include "headrace.redisUrlFrom" .Values.store.external.urlSecret }}
{{- else -}}
{{ include "headrace.secretEnv" (dict "root" . "variable" "HEADRACE_REDIS_URL" "key" "redisUrl") }}
{{- end -}}
{{- end -}}

{{/* The same for Ray pods, which may have a user of their own at the store, with fewer rights. */}}
{{- define "headrace.engineRedisUrlEnv" -}}
{{- $secret := .Values.store.external.engineUrlSecret -}}
{{- if and (eq .Values.store.mode "external") $secret.name -}}
{{ include "headrace.redisUrlFrom" $secret }}
{{- else -}}
{{ include "headrace.redisUrlEnv" . }}
{{- end -}}
{{- end -}}

{{- define "headrace.redisUrlFrom" -}}
- name: HEADRACE_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .name | quote }}
      key: {{ .key | quote }}
{{- end -}}

{{/* Host of the bundled store. */}}
{{- define "headrace.storeHost" -}}
{{- printf "%s.%s.svc" (include "headrace.componentName" (dict "root" . "component" "store")) .Release.Namespace -}}
{{- end -}}

{{/*
gcsFaultToleranceOptions of a RayCluster, or nothing where it is off. No externalStorageNamespace: two clusters of one
RayService that share it break its upgrades.
*/}}
{{- define "headrace.gcsFaultToleranceOptions" -}}
{{- if .Values.store.gcsFaultTolerance -}}
{{- if eq .Values.store.mode "bundled" -}}
redisAddress: redis://{{ include "headrace.storeHost" . }}:6379
redisPassword:
  valueFrom:
    secretKeyRef:
      name: {{ include "headrace.secretName" . | quote }}
      key: {{ .Values.secrets.existingSecret.keys.redisPassword | quote }}
{{- else -}}
{{- $gcs := .Values.store.external.gcs -}}
redisAddress: {{ $gcs.address | quote }}
{{- with $gcs.username }}
redisUsername:
  value: {{ . | quote }}
{{- end }}
{{- with $gcs.passwordSecret }}
{{- if .name }}
redisPassword:
  valueFrom:
    secretKeyRef:
      name: {{ .name | quote }}
      key: {{ .key | quote }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Volume and mount with the CA of the external store, each a list item, or nothing. */}}
{{- define "headrace.storeTlsVolume" -}}
{{- with .Values.store.external.tls.caSecret -}}
- name: store-tls
  secret:
    secretName: {{ . | quote }}
{{- end -}}
{{- end -}}

{{- define "headrace.storeTlsMount" -}}
{{- if .Values.store.external.tls.caSecret -}}
- name: store-tls
  mountPath: /certs/store
  readOnly: true
{{- end -}}
{{- end -}}

{{/* Seconds of the longest turn: what routes, scale-downs and old clusters wait for. */}}
{{- define "headrace.longestTurn" -}}
{{- .Values.gateway.settings.max_turn_seconds | default 600 | float64 | ceil | int64 -}}
{{- end -}}

{{/* All that speaks against these values, at once, one sentence a line. Call with a list of sentences. */}}
{{- define "headrace.refuse" -}}
{{- if . -}}
{{- fail (printf "\n\nThese values cannot be installed:\n- %s\n" (join "\n- " .)) -}}
{{- end -}}
{{- end -}}
