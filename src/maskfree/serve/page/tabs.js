// Tabs and the color theme.

const element = (id) => document.getElementById(id);

export function startTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const show = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      element(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
  };
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => show(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      const next = tabs[(place + step + tabs.length) % tabs.length];
      show(next);
      next.focus();
    });
  });
}

/** The system's theme, unless another one was chosen here. */
export function startTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const theme = localStorage.getItem("maskfree-theme") ?? (system.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    element("theme").textContent = theme === "dark" ? "Light" : "Dark";
    element("theme").setAttribute("aria-label", `Switch to ${theme === "dark" ? "light" : "dark"} colors`);
  };
  element("theme").addEventListener("click", () => {
    const isDark = document.documentElement.dataset.theme === "dark";
    localStorage.setItem("maskfree-theme", isDark ? "light" : "dark");
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}
