"""`{% load realtime %}`: what a template needs to listen from where its page was rendered."""

from django import template

from ..delivery.heads import position

register = template.Library()
register.simple_tag(position)
