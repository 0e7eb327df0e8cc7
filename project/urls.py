"""The site's URLs."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from project.demo.csp import strict_csp

login = auth.LoginView.as_view(template_name="demo/login.html", redirect_authenticated_user=True)

urlpatterns = [
    path("", include("realtime.urls")),  # first: what comes by the thousands
    path("admin/", admin.site.urls),
    path("login/", strict_csp(login), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("", include("project.demo.urls")),
]
