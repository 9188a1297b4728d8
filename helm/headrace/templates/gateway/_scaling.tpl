{{/* Turns in flight per pod that autoscalers aim at. */}}
{{- define "headrace.turnsPerPod" -}}
{{- $gateway := .Values.gateway -}}
{{- $most := mul (int64 $gateway.settings.max_turns) (int64 $gateway.processes) -}}
{{- $gateway.autoscaling.turnsPerPod | int64 | default (div (mul $most 6) 10) -}}
{{- end -}}

{{/* Up at once, by half or two pods; down by one pod at a time, after the longest turn has shown that it is not needed. */}}
{{- define "headrace.scalingBehavior" -}}
{{- $scaling := .Values.gateway.autoscaling -}}
{{- $patience := min 3600 (include "headrace.longestTurn" . | int64) -}}
scaleUp:
  stabilizationWindowSeconds: 0
  selectPolicy: Max
  policies:
    - type: Percent
      value: 50
      periodSeconds: 30
    - type: Pods
      value: 2
      periodSeconds: 30
scaleDown:
  stabilizationWindowSeconds: {{ $scaling.scaleDownStabilizationSeconds | int64 | default $patience }}
  policies:
    - type: Pods
      value: 1
      periodSeconds: {{ $scaling.scaleDownPeriodSeconds }}
{{- end -}}
