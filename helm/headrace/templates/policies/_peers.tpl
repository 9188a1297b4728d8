{{/*
Egress rules, each a list item. A rule without peers would open its ports to everywhere, so where there are none there is
no rule either.
*/}}

{{/* To DNS. */}}
{{- define "headrace.dnsEgress" -}}
{{- with .Values.networkPolicy.dns.to -}}
- to:
    {{- toYaml . | nindent 4 }}
  ports:
    {{- range $.Values.networkPolicy.dns.ports }}
    - protocol: UDP
      port: {{ . }}
    - protocol: TCP
      port: {{ . }}
    {{- end }}
{{- end -}}
{{- end -}}

{{/*
To the store. Ray's own address of it may have another port. Many network plugins do not apply addresses to pods, so a
store in this namespace is named as pods too; one in another namespace the values have to name.
*/}}
{{- define "headrace.storeEgress" -}}
{{- if eq .Values.store.mode "bundled" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "headrace.selector" (dict "root" . "component" "store") | nindent 10 }}
  ports:
    - port: 6379
{{- else -}}
{{- $external := .Values.store.external -}}
{{- $ports := $external.ports -}}
{{- if .Values.store.gcsFaultTolerance -}}
{{- $ports = append $ports (regexFind "[0-9]+$" $external.gcs.address) -}}
{{- end -}}
- to:
    {{- with .Values.networkPolicy.store.to }}
    {{- toYaml . | nindent 4 }}
    {{- else }}
    - podSelector: {}
    {{- range list "10.0.0.0/8" "172.16.0.0/12" "192.168.0.0/16" }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
    {{- end }}
  ports:
    {{- range $ports | join " " | splitList " " | uniq }}
    - port: {{ . }}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* To the hub, for init containers that fetch. Call with (dict "root" $ "fetches" BOOL). */}}
{{- define "headrace.hubEgress" -}}
{{- $hub := .root.Values.networkPolicy.hub -}}
{{- if and .fetches $hub.cidrs -}}
- to:
    {{- range $cidr := $hub.cidrs }}
    - ipBlock:
        cidr: {{ $cidr }}
        {{- $except := list }}
        {{- range $hub.except }}
        {{- if include "headrace.within" (dict "outer" $cidr "inner" .) }}{{ $except = append $except . }}{{ end }}
        {{- end }}
        {{- with $except }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
    {{- end }}
  ports:
    - port: 443
{{- end -}}
{{- end -}}

{{/* To the collector of traces, at its own port. */}}
{{- define "headrace.tracingEgress" -}}
{{- if .Values.tracing.endpoint -}}
{{- with .Values.networkPolicy.tracing.to -}}
- to:
    {{- toYaml . | nindent 4 }}
  ports:
    - port: {{ regexFind "[0-9]+$" (trimSuffix "/" $.Values.tracing.endpoint) }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
"yes" where a CIDR lies within another and is smaller, which Kubernetes asks of an exception. Of IPv6 only ::/0 is looked
into. Call with (dict "outer" CIDR "inner" CIDR).
*/}}
{{- define "headrace.within" -}}
{{- $outer := splitList "/" .outer -}}
{{- $inner := splitList "/" .inner -}}
{{- $bits := last $outer | int -}}
{{- $same := eq (contains ":" .outer) (contains ":" .inner) -}}
{{- if and $same (lt $bits (last $inner | int)) -}}
{{- if not (contains ":" .outer) -}}
{{- $size := 1 -}}
{{- range until (sub 32 $bits | int) }}{{ $size = mul $size 2 }}{{ end -}}
{{- $one := div (include "headrace.ipv4" (first $outer) | int64) $size -}}
{{- if eq $one (div (include "headrace.ipv4" (first $inner) | int64) $size) }}yes{{ end -}}
{{- else if eq $bits 0 -}}
yes
{{- end -}}
{{- end -}}
{{- end -}}

{{/* An IPv4 address as a number. */}}
{{- define "headrace.ipv4" -}}
{{- $number := 0 -}}
{{- range splitList "." . }}{{ $number = add (mul $number 256) (int64 .) }}{{ end -}}
{{- $number -}}
{{- end -}}
