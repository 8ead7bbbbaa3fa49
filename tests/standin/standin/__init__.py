"""A GlitchTip stand-in: web and worker over PostgreSQL and Valkey, speaking GlitchTip's HTTP.

It is test equipment for machines that cannot pull the real image. Two lines are imitated: ``5.2`` (Celery,
uWSGI, port 8080; behaviour measured on a server of that line) and ``6.2`` (all-in-one possible, port 8000;
behaviour as its published OpenAPI document and operators' notes tell). Nothing is invented: a path that was
never seen answers as the real server answers unknown paths. The same contract suite (``tests/contract``)
runs on it and on a real server.

One file a resource; each registers its routes on :data:`standin.http.router`.
"""
