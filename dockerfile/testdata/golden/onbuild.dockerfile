FROM python:3.13-slim AS base
WORKDIR /app
ONBUILD COPY requirements.txt .
ONBUILD RUN pip install -r requirements.txt
ONBUILD COPY . .
ENTRYPOINT ["python"]

FROM base AS app
MAINTAINER Someone <someone@example.com>
ENV NAME some value
ENTRYPOINT ["python", "-m", "app"]

FROM app
COPY --from=0 /etc/hosts /hosts
COPY --from=busybox:stable /bin/busybox /bin/
CMD ["--help"]
CMD ["--version"]
