"""Rows written with the change they follow from; a dispatcher turns them into Celery tasks."""
